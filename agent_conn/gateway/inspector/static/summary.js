// How much of the usage is attributed, level by level; the levels are filters too.

import { el, setAttribute, setHidden, setText } from "./dom.js";
import { bytes, count, percent } from "./format.js";
import { LEVELS, levelChip } from "./levels.js";

const SPOKEN_MILLISECONDS = 5000;

export class Summary {
  constructor(onFilter) {
    this.share = document.getElementById("share");
    this.note = document.getElementById("share-note");
    this.spoken = document.getElementById("spoken");
    this.bar = document.getElementById("usage-bar");
    this.saying = null;
    this.toSay = "";
    this.cards = LEVELS.map((level) => this.#card(level, onFilter));
    this.parts = LEVELS.map((level) => el("i", { "data-level": level }));
    document.getElementById("levels").append(...this.cards.map((card) => card.element));
    this.bar.append(...this.parts);
  }

  update(levels) {
    const all = LEVELS.reduce((sum, level) => sum + levels[level].bytes, 0);
    const attributed = all - levels.NONE.bytes;
    setText(this.share, percent(attributed, all));
    setText(
      this.note,
      all
        ? `of ${bytes(all)} of payload; ${percent(levels.AGENT.bytes, all)} to an agent`
        : "no payload yet",
    );
    this.cards.forEach((card) => card.update(levels[card.level], all));
    this.parts.forEach((part, index) => {
      const size = levels[LEVELS[index]].bytes;
      setHidden(part, size === 0);
      part.style.flexGrow = String(size);
    });
    this.#speak(levels, attributed, all);
  }

  #card(level, onFilter) {
    const open = el("span", { class: "open-count" });
    const share = el("span", { class: "level-share" });
    const served = el("span", { class: "muted small" });
    const element = el(
      "button",
      { type: "button", class: "card", "aria-pressed": "false", "data-level": level },
      levelChip(level),
      share,
      el("span", { class: "card-counts" }, open, served),
    );
    element.addEventListener("click", () => {
      const pressed = element.getAttribute("aria-pressed") !== "true";
      setAttribute(element, "aria-pressed", String(pressed));
      onFilter(level, pressed);
    });
    const update = (usage, all) => {
      setText(share, all ? `${percent(usage.bytes, all)} of usage` : "no usage");
      setText(open, `${count(usage.open)} open`);
      setText(served, ` of ${count(usage.served)}`);
    };
    return { level, element, update };
  }

  #speak(levels, attributed, all) {
    const open = LEVELS.map((level) => `${levels[level].open} ${level.toLowerCase()}`);
    const share = all ? `${percent(attributed, all)} of usage attributed.` : "No usage yet.";
    this.toSay = `Open connections: ${open.join(", ")}. ${share}`;
    this.saying ??= setTimeout(() => {
      this.saying = null;
      setText(this.spoken, this.toSay);
    }, SPOKEN_MILLISECONDS);
  }
}
