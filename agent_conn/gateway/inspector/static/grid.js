// The list of lines, newest first. Rows out of sight are written when they come into it.

import { el, setAttribute, setHidden, setText } from "./dom.js";
import { duration } from "./format.js";
import { COLUMNS, Row } from "./row.js";
import { NEWEST, inOrder, turned } from "./sort.js";
import { isFailure, passes } from "./store.js";
import { opening, scaleFor } from "./waterfall.js";

const PAGE_ROWS = 10;

export class Grid {
  constructor(element, store, onOpen) {
    this.element = element;
    this.store = store;
    this.onOpen = onOpen;
    this.rows = new Map();
    this.visible = new Set();
    this.stale = new Set();
    this.scale = 0.1;
    this.shown = 0;
    this.failed = 0;
    // Until a row has had focus, Tab leads to the first one.
    this.roved = false;
    this.sort = NEWEST;
    this.heads = new Map();
    this.filters = { levels: new Set(), path: "", state: "", text: "" };
    this.body = el("div", { class: "rows", role: "rowgroup" });
    this.axis = el("span", { class: "axis" });
    element.append(this.#header(), this.body);
    this.sight = new IntersectionObserver((entries) => this.#look(entries), { rootMargin: "200px" });
    this.body.addEventListener("click", (event) => this.#open(event.target.closest(".row")));
    this.body.addEventListener("keydown", (event) => this.#key(event));
    this.body.addEventListener("focusin", (event) => {
      this.roved = true;
      this.#rove(event.target.closest(".row"));
    });
  }

  /** Takes over what changed in the store. */
  update({ changed, counted, removed }) {
    for (const number of removed) this.#remove(number);
    for (const number of changed) {
      const line = this.store.lines.get(number);
      if (line && !this.rows.has(number)) this.#make(line);
    }
    if (changed.size || removed.size) {
      this.#rescale();
      for (const number of changed) this.#filter(this.rows.get(number));
      this.#order();
      this.#count();
    }
    for (const number of changed) this.#write(number, (row) => row.update(this.scale));
    for (const number of counted) this.#write(number, (row) => row.updateCounts());
  }

  /** Writes the ages of what is in sight, and puts what has overtaken another before it. */
  tick() {
    for (const row of this.visible) {
      if (row.line.current?.times.ended === null) row.updateTime(this.scale);
    }
    if (this.sort.column !== NEWEST.column) this.#order();
  }

  applyFilters() {
    for (const row of this.rows.values()) this.#filter(row);
    this.#rescale();
    this.#count();
  }

  select(line) {
    this.body.querySelector("[aria-selected]")?.removeAttribute("aria-selected");
    const row = this.rows.get(line);
    if (row) setAttribute(row.element, "aria-selected", "true");
  }

  focus(line) {
    const row = this.rows.get(line)?.element;
    (row && !row.hidden ? row : this.#first() ?? this.element).focus();
  }

  #header() {
    const cells = COLUMNS.map(([name, title]) => {
      const button = el("button", { type: "button", class: "sort" }, title);
      button.addEventListener("click", () => this.#sortBy(name));
      const cell = el("div", { class: `cell ${name}`, role: "columnheader" }, button);
      if (name === "phases") cell.append(" ", this.axis);
      this.heads.set(name, cell);
      return cell;
    });
    this.#showSort();
    return el("div", { role: "rowgroup", class: "head-box" }, el("div", { class: "head", role: "row" }, ...cells));
  }

  #make(line) {
    const row = new Row(line, this.store, this.scale);
    this.rows.set(line.number, row);
    this.sight.observe(row.element);
  }

  #sortBy(column) {
    this.sort = turned(this.sort, column);
    this.#showSort();
    this.#order();
    this.#count();
  }

  #showSort() {
    const way = this.sort.descending ? "descending" : "ascending";
    for (const [name, cell] of this.heads) {
      setAttribute(cell, "aria-sort", name === this.sort.column ? way : "none");
    }
  }

  /** Moves the rows that are not in their place; one that has focus keeps it. */
  #order() {
    const focused = document.activeElement;
    let next = this.body.firstElementChild;
    for (const { element } of inOrder([...this.rows.values()], this.sort, this.store.now())) {
      if (element === next) next = next.nextElementSibling;
      else this.body.insertBefore(element, next);
    }
    if (focused !== document.activeElement) focused.focus();
  }

  #remove(number) {
    const row = this.rows.get(number);
    if (!row) return;
    const focused = row.element.contains(document.activeElement);
    const neighbour = this.#beside(row.element, 1) ?? this.#beside(row.element, -1);
    this.sight.unobserve(row.element);
    row.element.remove();
    this.rows.delete(number);
    this.visible.delete(row);
    this.stale.delete(row);
    if (row.element.tabIndex === 0 && neighbour) neighbour.tabIndex = 0;
    if (focused) (neighbour ?? this.element).focus();
  }

  #write(number, write) {
    const row = this.rows.get(number);
    if (!row) return;
    row.line = this.store.lines.get(number) ?? row.line;
    if (this.visible.has(row)) write(row);
    else this.stale.add(row);
  }

  #look(entries) {
    for (const entry of entries) {
      const row = this.rows.get(Number(entry.target.dataset.line));
      if (!row) continue;
      if (!entry.isIntersecting) {
        this.visible.delete(row);
        continue;
      }
      this.visible.add(row);
      this.stale.delete(row);
      if (row.line.members.size) row.update(this.scale);
    }
  }

  #filter(row) {
    const line = row && this.store.lines.get(row.line.number);
    if (!line) return;
    setHidden(row.element, !passes(line, this.filters));
  }

  #count() {
    const all = [...this.rows.values()].filter((row) => !row.element.hidden);
    this.shown = all.length;
    this.failed = all.filter((row) => row.line.members.size && isFailure(row.line.current)).length;
    setAttribute(this.element, "aria-rowcount", String(this.shown + 1));
    if (!this.roved || !all.some((row) => row.element.tabIndex === 0)) this.#rove(this.#first());
  }

  #rescale() {
    const now = this.store.now();
    const durations = [...this.rows.values()]
      .filter((row) => !row.element.hidden && row.line.members.size)
      .map((row) => opening(row.line.current.times, now));
    const scale = scaleFor(durations);
    setText(this.axis, `0 – ${duration(scale)}`);
    if (scale === this.scale) return;
    this.scale = scale;
    for (const row of this.visible) if (row.line.members.size) row.updateTime(scale);
  }

  #open(element) {
    if (element) this.onOpen(Number(element.dataset.line));
  }

  #key(event) {
    const row = event.target.closest(".row");
    if (!row) return;
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: PAGE_ROWS, PageUp: -PAGE_ROWS };
    const ends = { Home: Infinity, End: -Infinity };
    if (event.key === "Enter" || event.key === " ") this.#open(row);
    else if (event.key in steps) this.#beside(row, steps[event.key])?.focus();
    else if (event.key in ends) this.#beside(row, -ends[event.key])?.focus();
    else return;
    event.preventDefault();
  }

  /** The row as many rows on as `step` says, or the last on the way there. */
  #beside(row, step) {
    let found = null;
    let next = row;
    for (let left = Math.abs(step); left > 0; ) {
      next = step > 0 ? next.nextElementSibling : next.previousElementSibling;
      if (!next) break;
      if (next.hidden) continue;
      found = next;
      left -= 1;
    }
    return found;
  }

  #first() {
    return this.body.querySelector(".row:not([hidden])");
  }

  #rove(element) {
    if (!element) return;
    for (const row of this.body.querySelectorAll('.row[tabindex="0"]')) row.tabIndex = -1;
    element.tabIndex = 0;
  }
}
