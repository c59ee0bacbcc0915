// Numbers as a person reads them.

const whole = new Intl.NumberFormat("en");

export function count(number) {
  return whole.format(number);
}

export function bytes(number) {
  if (number < 1000) return `${number} B`;
  for (const [unit, size] of [["kB", 1e3], ["MB", 1e6], ["GB", 1e9]]) {
    if (number < size * 999.5 || unit === "GB") return `${figures(number / size)} ${unit}`;
  }
  return "";
}

/** A duration of at most three figures: 0.4 ms, 12 ms, 1.24 s, 3 m 05 s, 2 h 10 m. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0.9995) {
    const milliseconds = Math.max(0, seconds * 1000);
    if (milliseconds < 0.05) return "<0.1 ms";
    return `${milliseconds < 9.95 ? milliseconds.toFixed(1) : Math.round(milliseconds)} ms`;
  }
  if (seconds < 59.5) return `${figures(seconds)} s`;
  return age(seconds);
}

/** A duration that goes on, in whole seconds. */
export function age(seconds) {
  const all = Math.max(0, Math.floor(seconds));
  const [hours, minutes, rest] = [Math.floor(all / 3600), Math.floor(all / 60) % 60, all % 60];
  if (hours) return `${hours} h ${String(minutes).padStart(2, "0")} m`;
  if (minutes) return `${minutes} m ${String(rest).padStart(2, "0")} s`;
  return seconds < 1 ? "<1 s" : `${rest} s`;
}

const time = new Intl.DateTimeFormat("en", { timeStyle: "medium", hourCycle: "h23" });
const whenever = new Intl.DateTimeFormat("en", {
  dateStyle: "medium",
  timeStyle: "medium",
  hourCycle: "h23",
});

/** The time of day, to the second: 14:03:22. */
export function clock(date) {
  return time.format(date);
}

/** The day and the time to the millisecond. */
export function moment(date) {
  return `${whenever.format(date)}.${String(date.getMilliseconds()).padStart(3, "0")}`;
}

export function percent(part, all) {
  if (!all) return "–";
  const share = (100 * part) / all;
  if (part && share < 1) return "<1%";
  if (part < all && share > 99) return ">99%";
  return `${Math.round(share)}%`;
}

function figures(number) {
  if (number < 9.995) return number.toFixed(2);
  return number < 99.95 ? number.toFixed(1) : String(Math.round(number));
}
