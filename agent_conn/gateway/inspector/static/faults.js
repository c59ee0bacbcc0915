// The form that injects a fault: on one live connection, or on the next ones.

import { read, send } from "./api.js";
import { el, setText } from "./dom.js";

let known = null;
let forms = 0;

/** A form; `connection()` gives the number of the live connection, or null for the next. */
export async function faultForm(connection) {
  known ??= await read("/inspector/faults");
  const live = connection() !== null;
  const faults = (known ?? []).filter((fault) => fault.live || !live);
  const id = `fault-${(forms += 1)}`;
  const select = el("select", { id, name: "fault" });
  select.append(...faults.map((fault) => el("option", { value: fault.name }, fault.label)));
  if (faults.some((fault) => fault.name === "CloseWith")) select.value = "CloseWith";
  const about = el("p", { class: "muted small" });
  const fields = el("div", { class: "fields" });
  const outcome = el("p", { class: "outcome", role: "status" });
  const times = live ? null : numberField(`${id}-times`, "times", 1, true);
  const form = el(
    "form",
    { class: "fault-form", "aria-label": live ? "Inject a fault here" : "Inject a fault on the next" },
    el("label", { for: id }, "Fault"),
    select,
    about,
    fields,
    times?.element ?? "",
    el("button", { type: "submit", class: "primary" }, live ? "Inject here" : "Inject on the next"),
    outcome,
  );
  let inputs = [];
  const choose = () => {
    const fault = faults.find((one) => one.name === select.value);
    setText(about, fault?.about ?? "The gateway does not say which faults there are.");
    inputs = (fault?.fields ?? []).map((field) => fieldInput(`${id}-${field.name}`, field, live));
    fields.replaceChildren(...inputs.map((input) => input.element));
  };
  select.addEventListener("change", choose);
  choose();
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const values = inputs.map((input) => [input.name, input.value()]);
    const { error, fault } = await send("POST", "/inspector/faults", {
      fault: select.value,
      fields: Object.fromEntries(values.filter(([, value]) => value !== undefined)),
      connection: connection(),
      times: times ? times.value() : 1,
    });
    outcome.classList.toggle("error", error !== null);
    setText(outcome, error ?? `Injected: ${fault}.`);
  });
  return form;
}

/** The faults that wait for a connection, each to be withdrawn. */
export function pendingList(faults) {
  if (!faults.length) return el("p", { class: "muted" }, "None waits for a connection.");
  return el("ul", { class: "pending" }, ...faults.map(pendingItem));
}

function pendingItem(fault) {
  const left = fault.remaining === null ? "until withdrawn" : `${fault.remaining} to go`;
  const limit = fault.seconds === null ? left : `for ${fault.seconds} s at most`;
  const withdraw = el("button", { type: "button" }, "Withdraw");
  withdraw.addEventListener("click", () => send("DELETE", `/inspector/faults/${fault.number}`));
  const label = `${fault.fault}, ${limit}, ${fault.struck} struck`;
  return el("li", { "data-fault": fault.fault }, el("span", {}, label), withdraw);
}

function fieldInput(id, field, live) {
  const label = el("label", { for: id }, field.name.replaceAll("_", " "));
  const made = inputFor(id, field, live);
  return { name: field.name, value: made.value, element: el("div", { class: "field" }, label, made.input) };
}

function inputFor(id, field, live) {
  if (field.kind === "integer" || field.kind === "number") {
    const { input, value } = numberField(id, field.name, field.default, field.kind === "integer", field.required);
    return { input, value };
  }
  if (field.kind === "flag") {
    const input = el("input", { id, type: "checkbox" });
    input.checked = field.default === true;
    return { input, value: () => input.checked };
  }
  if (field.kind === "choice") {
    const choices = live ? field.live : field.choices;
    const input = el("select", { id }, ...choices.map((one) => el("option", {}, one)));
    input.value = field.default;
    return { input, value: () => input.value };
  }
  if (field.kind === "headers") {
    const input = el("textarea", { id, rows: "2", placeholder: "Retry-After: 1" });
    return { input, value: () => parseHeaders(input.value) };
  }
  const input = el("input", { id, type: "text", required: field.required });
  input.value = field.default ?? "";
  // An untouched text keeps the fault's own default, which a text field may not hold.
  return { input, value: () => (input.value === (field.default ?? "") ? undefined : input.value) };
}

function numberField(id, name, initial, isWhole, required = false) {
  const input = el("input", { id, type: "number", step: isWhole ? "1" : "any", required });
  input.value = initial ?? "";
  if (name === "code") Object.assign(input, { min: 0, max: 65535, value: initial ?? 1011 });
  if (name === "times") input.min = 1;
  const value = () => (input.value === "" ? undefined : Number(input.value));
  const element = el("div", { class: "field" }, el("label", { for: id }, name), input);
  return { element, input, value };
}

function parseHeaders(text) {
  const lines = text.split("\n").filter((line) => line.trim());
  return Object.fromEntries(
    lines.map((line) => {
      const [name, ...rest] = line.split(":");
      return [name.trim(), rest.join(":").trim()];
    }),
  );
}
