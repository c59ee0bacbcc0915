// What to do when there is nothing to see yet.

import { el } from "./dom.js";

const ANY = { LIVEKIT_INFERENCE_API_KEY: "any", LIVEKIT_INFERENCE_API_SECRET: "any" };

/** Tells how a client finds this gateway; `access` is what opens it, null if that is not known. */
export function noConnections(access) {
  const given = Object.entries(access?.exports ?? {});
  const open = access !== null && !access.needsToken;
  const variables = given.length ? given : open ? Object.entries(ANY) : [];
  const commands = [
    `export LIVEKIT_INFERENCE_URL=${location.origin}/v1`,
    ...variables.map(([name, word]) => `export ${name}=${word}`),
  ].join("\n");
  const probe = location.protocol === "https:" ? "agent-conn probe --insecure" : "agent-conn probe";
  return [
    el("h2", {}, "No connection yet"),
    el("p", {}, "Point an agent at this gateway, in the shell that starts it:"),
    el("pre", { tabindex: "0" }, el("code", { id: "commands" }, commands)),
    el("p", { class: "muted" }, credentials(given.length > 0, open)),
    el("p", {}, "Or open one connection from the same shell, to see it here:"),
    el("pre", { tabindex: "0" }, el("code", { id: "probe" }, probe)),
  ];
}

function credentials(given, open) {
  if (given) return "These are the credentials that the gateway was started with.";
  if (open) return "This gateway takes any key and secret.";
  return "Export the credentials that open this gateway, too: LIVEKIT_INFERENCE_API_KEY and LIVEKIT_INFERENCE_API_SECRET, or LIVEKIT_INFERENCE_TOKEN.";
}

/** Tells that the filters let nothing through. */
export function noMatches(onClear) {
  const clear = el("button", { type: "button" }, "Show all");
  clear.addEventListener("click", onClear);
  return [el("h2", {}, "Nothing matches the filters"), clear];
}
