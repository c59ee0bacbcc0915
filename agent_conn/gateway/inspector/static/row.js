// One line's row: made once, then only what is another than before is written.

import { copy } from "./copy.js";
import { el, setAttribute, setHidden, setText } from "./dom.js";
import { age, bytes, clock, count, duration, moment } from "./format.js";
import { levelChip, setLevel } from "./levels.js";
import { isLoss } from "./store.js";
import { Waterfall, opening, waited } from "./waterfall.js";

export const COLUMNS = [
  ["number", "#"],
  ["level", "Level"],
  ["state", "State"],
  ["ids", "Agent, room, job"],
  ["path", "Path, model"],
  ["client", "Client"],
  ["wait", "Wait"],
  ["phases", "Phases"],
  ["frames", "Frames"],
  ["bytes", "Bytes"],
  ["began", "Began"],
];

export class Row {
  constructor(line, store, scale) {
    this.line = line;
    this.store = store;
    this.chip = levelChip(line.current.level);
    this.waterfall = new Waterfall();
    this.cells = Object.fromEntries(COLUMNS.map(([name]) => [name, cell(name)]));
    this.from = second(this.cells.level, this.chip);
    [this.pathFirst, this.pathSecond] = two(this.cells.path);
    this.agent = idButton("agent");
    this.room = idButton("room");
    this.job = idButton("job");
    this.noIds = el("span", { class: "muted" });
    this.cells.ids.append(
      el("span", { class: "first" }, this.agent, this.noIds),
      el("span", { class: "second" }, this.room, this.job),
    );
    this.clientFirst = el("span", { class: "first" });
    this.cells.client.append(this.clientFirst);
    [this.stateFirst, this.stateSecond] = two(this.cells.state);
    [this.framesIn, this.framesOut] = two(this.cells.frames);
    [this.bytesIn, this.bytesOut] = two(this.cells.bytes);
    [this.clock, this.age] = two(this.cells.began);
    this.opened = second(this.cells.phases, this.waterfall.element);
    this.element = el(
      "div",
      { class: "row", role: "row", tabindex: "-1", "data-line": line.number },
      ...Object.values(this.cells),
    );
    this.update(scale);
  }

  /** Writes everything. */
  update(scale) {
    const one = this.line.current;
    setText(this.cells.number, String(one.number));
    setLevel(this.chip, one.level);
    this.#updateFrom(one);
    setText(this.stateFirst, [one.state, one.state === "rejected" ? one.status : one.code].filter(Boolean).join(" "));
    setAttribute(this.stateFirst, "data-state", one.state);
    setText(this.stateSecond, one.fault ? `fault: ${one.fault}` : stateNote(one));
    setText(this.pathFirst, one.path ?? "–");
    setText(this.pathSecond, one.model ?? "");
    setText(this.clientFirst, one.client || (one.path ? "unnamed client" : one.peer));
    for (const name of ["agent", "room", "job"]) setId(this[name], name, one[name] ?? null);
    setText(this.noIds, missing(one));
    setAttribute(this.stateSecond, "title", this.stateSecond.textContent);
    setAttribute(this.cells.path, "title", [one.path, one.model].filter(Boolean).join("  "));
    setAttribute(this.cells.client, "title", one.client || one.peer);
    setAttribute(this.element, "data-state", one.state);
    setAttribute(this.element, "data-lost", isLoss(one) ? "" : null);
    setAttribute(this.element, "data-level", one.level ?? "UNKNOWN");
    this.updateCounts();
    const began = this.store.date(one.times.accepted ?? one.times.requested);
    setText(this.clock, clock(began));
    setAttribute(this.cells.began, "title", moment(began));
    this.updateTime(scale);
  }

  updateCounts() {
    const [framesIn, framesOut, bytesIn, bytesOut] = this.line.counts;
    setText(this.framesIn, `${count(framesIn)} in`);
    setText(this.framesOut, `${count(framesOut)} out`);
    setText(this.bytesIn, bytes(bytesIn));
    setText(this.bytesOut, bytes(bytesOut));
  }

  /** Writes what goes on by itself: the wait, the bar, the age. */
  updateTime(scale) {
    const now = this.store.now();
    const { times, state } = this.line.current;
    const wait = waited(times, now);
    setText(this.cells.wait, wait === null ? "–" : duration(wait));
    setText(this.opened, duration(opening(times, now)));
    const begun = times.accepted ?? times.requested;
    setText(this.age, age((times.ended ?? now) - begun));
    this.waterfall.update(times, state, scale, now);
  }

  #updateFrom(one) {
    const before = this.line.previous;
    setHidden(this.from, before === null);
    if (before === null) return;
    const still = before.state === "open";
    setText(this.from, still ? `${before.level} still open` : `was ${before.level}`);
    const rest = still ? ", which is still open" : "";
    setAttribute(this.from, "title", `#${one.number} took over from #${before.number}${rest}`);
  }
}

/** What is missing of the ids, in words. */
function missing(one) {
  if (one.agent) return "";
  if (one.path === undefined) return "–";
  return one.room || one.job ? "no agent id" : "no ids sent";
}

function stateNote(one) {
  if (isLoss(one)) return one.code === 1006 ? "lost: no Close came" : `lost: Close ${one.code}`;
  if (one.path === undefined) return one.state === "closed" ? "no request came" : "no request yet";
  if (one.state === "closed" && one.status === null) return "no answer was sent";
  if (one.state === "answered") return `status ${one.status}`;
  return one.reason ?? "";
}

/** An id in full, which a click copies; with the keyboard it is copied in the drawer. */
function idButton(name) {
  const button = el("button", { type: "button", class: `id ${name}-id`, tabindex: "-1", hidden: true });
  button.addEventListener("click", (event) => {
    event.stopPropagation();
    copy(button);
  });
  return button;
}

function setId(button, name, id) {
  setHidden(button, id === null);
  if (id === null || button.textContent === id) return;
  setText(button, id);
  setAttribute(button, "aria-label", `Copy the ${name} id ${id}`);
  setAttribute(button, "title", `Copy the ${name} id`);
}

function cell(name) {
  return el("div", { class: `cell ${name}`, role: "gridcell" });
}

function two(parent) {
  const [first, next] = [el("span", { class: "first" }), el("span", { class: "second" })];
  parent.append(first, next);
  return [first, next];
}

function second(parent, first) {
  const next = el("span", { class: "second" });
  parent.append(first, next);
  return next;
}
