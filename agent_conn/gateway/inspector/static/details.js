// What is known of one connection, section by section.

import { copy } from "./copy.js";
import { el } from "./dom.js";
import { bytes, count, duration, moment } from "./format.js";
import { levelChip } from "./levels.js";
import { phasesOf } from "./waterfall.js";

const COPIED = new Set(["Agent", "Room", "Job", "Session"]);
const CLOSE_CODES = {
  1000: "normal closure",
  1001: "going away",
  1002: "protocol error",
  1003: "unsupported data",
  1005: "no code was sent",
  1006: "no Close frame came",
  1007: "invalid payload",
  1008: "policy violation",
  1009: "message too big",
  1010: "extension missing",
  1011: "internal error",
  1012: "service restart",
  1013: "try again later",
};

/** The facts: ids, client, request and end; `began` is when it came. */
export function facts(row, began) {
  const code = row.code === null ? "–" : `${row.code} ${CLOSE_CODES[row.code] ?? ""}`;
  const pairs = [
    ["Agent", row.agent],
    ["Room", row.room],
    ["Job", row.job],
    ["Session", row.session],
    ["Began", moment(began)],
    ["Client", row.client],
    ["From", row.peer],
    ["Path", row.path],
    ["Model", row.model],
    ["Status", row.status],
    ["Reason", row.reason],
    ["Close code", code],
    ["Fault", row.fault],
    ["Frames", `${count(row.counts[0])} in, ${count(row.counts[1])} out`],
    ["Bytes", `${bytes(row.counts[2])} in, ${bytes(row.counts[3])} out`],
  ];
  return el(
    "dl",
    { class: "facts" },
    ...pairs.flatMap(([name, value]) => [
      el("dt", {}, name),
      el("dd", { "data-fact": name }, ...fact(name, value)),
    ]),
  );
}

function fact(name, value) {
  if (value === null || value === undefined) return ["–"];
  if (!COPIED.has(name)) return [String(value)];
  const text = el("span", {}, String(value));
  const button = el("button", { type: "button", class: "copy", "aria-label": `Copy the ${name.toLowerCase()} id` }, "Copy");
  button.addEventListener("click", () => copy(text));
  return [text, " ", button];
}

/** The connections of the line, oldest first, each a button that shows it. */
export function lineage(line, shown, onShow) {
  const members = [...line.members.values()].sort((a, b) => a.number - b.number);
  return el("ol", { class: "lineage" }, ...members.map((one) => {
    const button = el("button", { type: "button", "aria-current": one.number === shown ? "true" : null },
      `#${one.number} `, levelChip(one.level), ` ${one.state}`);
    button.addEventListener("click", () => onShow(one.number));
    return el("li", {}, button);
  }));
}

/** The phases, each with its bar on one scale and its duration. */
export function phases(row, now) {
  const found = phasesOf(row.times, now).filter((one) => one.over || one.key !== "message");
  const all = Math.max(0.000001, ...found.map((one) => one.end));
  const lines = found.map((phase) => {
    const bar = el("i", { class: "phase", "data-phase": phase.key });
    bar.style.left = `${(phase.start / all) * 100}%`;
    bar.style.width = `${((phase.end - phase.start) / all) * 100}%`;
    const took = `${duration(phase.end - phase.start)}${phase.over ? "" : " so far"}`;
    return tableRow([phase.name, el("div", { class: "waterfall" }, bar), took]);
  });
  if (row.state === "open" || row.state === "closed") {
    const since = row.times.answered ?? row.times.ended ?? now;
    const open = (row.times.ended ?? now) - since;
    lines.push(tableRow([row.state === "open" ? "open since" : "was open", "", duration(open)]));
  }
  return el("table", { class: "phases-table" }, el("tbody", {}, ...lines));
}

/** What was heard and what is to be spoken. */
export function transcript(details) {
  if (!details.transcript.length) return el("p", { class: "muted" }, "No text yet.");
  const begun = start(details.row);
  return el(
    "ol",
    { class: "transcript" },
    givenUp(details.transcriptGivenUp, "earlier line"),
    ...details.transcript.map(([, direction, at, text, final]) =>
      el(
        "li",
        { "data-final": String(final) },
        el("span", { class: "muted mono" }, `${duration(at - begun)} `),
        el("b", { class: "small" }, direction === "in" ? "to speak " : final ? "heard " : "hearing "),
        el("span", { class: "text" }, text),
      ),
    ),
  );
}

/** The log: a line for messages of one type that came one after another. */
export function messages(details) {
  if (!details.messages.length) return el("p", { class: "muted" }, "No message yet.");
  const begun = start(details.row);
  const rows = details.messages.map(([, direction, type, first, , number, size]) =>
    tableRow([
      duration(first - begun),
      direction === "in" ? "← in" : "→ out",
      type,
      number === 1 ? "" : `×${count(number)}`,
      bytes(size),
    ]),
  );
  const head = ["At", "Way", "Type", "Times", "Size"].map((name) => el("th", { scope: "col" }, name));
  return el(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": "Messages" },
    givenUp(details.messagesGivenUp, "earlier message"),
    el("table", { class: "log" }, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows)),
  );
}

export function headers(details) {
  if (!details.headers.length) return el("p", { class: "muted" }, "No request yet.");
  return el("dl", { class: "facts headers" }, ...details.headers.flatMap(([name, value]) => [
    el("dt", {}, name),
    el("dd", {}, value),
  ]));
}

export function start(row) {
  return row.times.accepted ?? row.times.requested;
}

function givenUp(number, what) {
  if (!number) return null;
  return el("p", { class: "muted small" }, `${count(number)} ${what}${number === 1 ? "" : "s"} not kept.`);
}

function tableRow(cells) {
  return el("tr", {}, ...cells.map((cell) => el("td", {}, cell)));
}
