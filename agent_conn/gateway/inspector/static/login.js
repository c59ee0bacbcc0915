// Shows the token to the gateway once; a cookie stands for it from then on.

import { send } from "./api.js";

document.getElementById("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  const field = document.getElementById("token");
  const { error } = await send("POST", "/inspector/session", { token: field.value });
  if (error === null) {
    location.replace("/");
    return;
  }
  document.getElementById("login-error").textContent = error;
  field.select();
});
