// A connection's opening as a waterfall. All rows share one scale, so that bars compare.

import { el, setAttribute, setHidden } from "./dom.js";
import { duration } from "./format.js";

export const PHASES = [
  { key: "tls", name: location.protocol === "https:" ? "TLS" : "accept", from: "accepted", to: "secured" },
  { key: "wait", name: "wait", from: "secured", to: "requested" },
  { key: "answer", name: "answer", from: "requested", to: "answered" },
  { key: "message", name: "first message", from: "answered", to: "message" },
];

/** The phases of `times`: name, start, end (null while it goes on), in seconds from the first. */
export function phasesOf(times, now) {
  const start = times.accepted ?? times.requested;
  const found = [];
  for (const phase of PHASES) {
    const from = times[phase.from];
    if (from === null) continue;
    const to = times[phase.to];
    const end = to ?? times.ended ?? now;
    found.push({ ...phase, start: from - start, end: Math.max(from, end) - start, over: to !== null });
    if (to === null) break;
  }
  return found;
}

/** Seconds from the accept to the first message, or as far as it has come. */
export function opening(times, now) {
  // With the 101 the opening is over; the first message may be minutes away.
  const start = times.accepted ?? times.requested;
  return (times.message ?? times.answered ?? times.ended ?? now) - start;
}

/** Seconds from when a request could be sent until it came. */
export function waited(times, now) {
  if (times.secured === null) return null;
  return (times.requested ?? times.ended ?? now) - times.secured;
}

/** A round number of seconds that most of the durations fit in. */
export function scaleFor(durations) {
  if (!durations.length) return 0.1;
  const sorted = [...durations].sort((a, b) => a - b);
  const most = sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * 0.95))];
  for (let power = 0.001; ; power *= 10) {
    for (const step of [1, 2, 5]) if (most <= step * power) return step * power;
    if (power > 1e6) return power;
  }
}

export class Waterfall {
  constructor() {
    this.segments = PHASES.map((phase) => el("i", { class: "phase", "data-phase": phase.key }));
    this.life = el("i", { class: "life" });
    this.element = el("div", { class: "waterfall", role: "img" }, ...this.segments, this.life);
  }

  update(times, state, scale, now) {
    const phases = phasesOf(times, now);
    const shown = phases.filter((one) => one.over || (one.key !== "message" && !times.ended));
    const last = shown.at(-1);
    const alive = times.answered !== null && (state === "open" || state === "closed");
    this.segments.forEach((segment, index) => {
      const phase = shown.find((one) => one.key === PHASES[index].key);
      setHidden(segment, !phase);
      if (phase) place(segment, phase.start, phase.end, scale);
    });
    setHidden(this.life, !alive);
    if (alive) {
      place(this.life, last?.end ?? 0, scale, scale);
      setAttribute(this.life, "data-state", state);
    }
    const words = shown.map((one) => `${one.name} ${duration(one.end - one.start)}`).join(", ");
    setAttribute(this.element, "aria-label", words || "no phase yet");
    setAttribute(this.element, "title", words);
    this.element.classList.toggle("beyond", (last?.end ?? 0) > scale);
  }
}

/** What the colours mean. */
export function legend() {
  const items = PHASES.map(({ key, name }) => [el("i", { class: "phase", "data-phase": key }), name]);
  items.push([el("i", { class: "life" }), "open"]);
  return items.map(([bar, name]) => el("span", {}, el("span", { class: "waterfall" }, bar), name));
}

function place(element, start, end, scale) {
  const from = Math.min(1, start / scale);
  const to = Math.min(1, end / scale);
  const left = `${(from * 100).toFixed(2)}%`;
  const width = `${((to - from) * 100).toFixed(2)}%`;
  if (element.style.left !== left) element.style.left = left;
  if (element.style.width !== width) element.style.width = width;
}
