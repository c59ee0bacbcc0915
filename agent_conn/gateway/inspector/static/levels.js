// The attribution levels: each a word, a colour by its name, and as many pips as it is high.

import { el, setAttribute } from "./dom.js";

export const LEVELS = ["AGENT", "ROOM", "JOB", "NONE"];
export const PIPS = { AGENT: 3, ROOM: 2, JOB: 1, NONE: 0 };

/** A chip that shows a level; `setLevel` changes it. */
export function levelChip(level) {
  const pips = el("span", { class: "pips", "aria-hidden": "true" }, el("i"), el("i"), el("i"));
  const chip = el("span", { class: "chip" }, pips, el("b"));
  setLevel(chip, level);
  return chip;
}

export function setLevel(chip, level) {
  const name = level ?? "UNKNOWN";
  if (chip.dataset.level === name) return;
  const upgraded = name in PIPS && PIPS[name] > (PIPS[chip.dataset.level] ?? 9);
  setAttribute(chip, "data-level", name);
  setAttribute(chip, "title", level ? `Attributed: ${level}` : "No request yet, so no ids");
  chip.lastChild.textContent = level ?? "no ids yet";
  [...chip.firstChild.children].forEach((pip, index) => {
    pip.className = index < (PIPS[name] ?? 0) ? "on" : "";
  });
  if (upgraded) {
    chip.classList.add("upgraded");
    chip.addEventListener("animationend", () => chip.classList.remove("upgraded"), { once: true });
  }
}
