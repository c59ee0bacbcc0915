// What the page knows: every connection, and the lines that they belong to.
//
// A line is what a client sees as one connection. Where a better-attributed connection takes
// over from another, both belong to the line of the first, and the line shows the newest that
// is open.

export const STATES = ["failed", "handshaking", "open", "closed", "rejected", "answered"];

/** Whether it ended by anything but a Close that says that all is well. */
export function isLoss(one) {
  return one.state === "closed" && one.code !== null && one.code !== 1000 && one.code !== 1001;
}

/** Whether it was refused, or lost. */
export function isFailure(one) {
  return one.state === "rejected" || isLoss(one);
}

export class Line {
  constructor(number) {
    this.number = number;
    this.members = new Map();
  }

  /** The connection that stands for the line. */
  get current() {
    const newest = [...this.members.values()].sort((a, b) => b.number - a.number);
    return newest.find((one) => one.state === "open") ?? newest[0];
  }

  /** The one before it, if it took over from one. */
  get previous() {
    const current = this.current;
    const older = [...this.members.values()].filter((one) => one.number < current.number);
    return older.sort((a, b) => b.number - a.number)[0] ?? null;
  }

  /** Frames in and out, bytes in and out, of all its connections. */
  get counts() {
    const sum = [0, 0, 0, 0];
    for (const member of this.members.values()) {
      for (let index = 0; index < 4; index += 1) sum[index] += member.counts[index];
    }
    return sum;
  }
}

export class Store {
  constructor() {
    this.lines = new Map();
    this.status = null;
    this.paths = new Set();
    this.changed = new Set();
    this.counted = new Set();
    this.removed = new Set();
    this.lineOf = new Map();
    this.offset = 0;
    this.epoch = 0;
  }

  /** The gateway's clock, in seconds. */
  now() {
    return performance.now() / 1000 + this.offset;
  }

  /** The wall clock's time at a time of the gateway's clock. */
  date(seconds) {
    return new Date((this.epoch + seconds) * 1000);
  }

  connection(number) {
    return this.lines.get(this.lineOf.get(number))?.members.get(number) ?? null;
  }

  reset() {
    for (const number of this.lines.keys()) this.removed.add(number);
    this.lines.clear();
    this.lineOf.clear();
    this.paths.clear();
    this.changed.clear();
    this.counted.clear();
  }

  rows(rows) {
    for (const row of rows) {
      const line = this.lines.get(row.line) ?? new Line(row.line);
      this.lines.set(row.line, line);
      const before = this.lineOf.get(row.number);
      if (before !== undefined && before !== row.line) this.#leave(before, row.number);
      line.members.set(row.number, row);
      this.lineOf.set(row.number, row.line);
      if (row.path) this.paths.add(row.path);
      this.changed.add(row.line);
      this.removed.delete(row.line);
    }
  }

  counts(counts) {
    for (const [number, ...one] of counts) {
      const member = this.connection(number);
      if (member === null) continue;
      member.counts = one;
      this.counted.add(member.line);
    }
  }

  gone(numbers) {
    for (const number of numbers) {
      const line = this.lineOf.get(number);
      if (line !== undefined) this.#leave(line, number);
      this.lineOf.delete(number);
    }
  }

  setStatus(status) {
    this.status = status;
    this.offset = status.now - performance.now() / 1000;
    this.epoch = status.clock - status.now;
  }

  /** The lines that changed since the last call, and those that are gone. */
  take() {
    const taken = { changed: this.changed, counted: this.counted, removed: this.removed };
    [this.changed, this.counted, this.removed] = [new Set(), new Set(), new Set()];
    return taken;
  }

  #leave(number, member) {
    const line = this.lines.get(number);
    line?.members.delete(member);
    if (!line || line.members.size) {
      this.changed.add(number);
      return;
    }
    this.lines.delete(number);
    this.changed.delete(number);
    this.counted.delete(number);
    this.removed.add(number);
  }
}

/** All that a line can be found by, in lower case. */
function textOf(line) {
  const names = ["agent", "room", "job", "session", "client", "path", "model", "peer", "status", "reason", "code", "fault"];
  const all = [...line.members.values()].flatMap((one) => names.map((name) => one[name] ?? ""));
  return all.join("\n").toLowerCase();
}

function isState(one, state) {
  return state === "failed" ? isFailure(one) : one.state === state;
}

/** Whether a line passes the filters; an empty filter lets everything through. */
export function passes(line, filters) {
  const current = line.current;
  return (
    (filters.levels.size === 0 || filters.levels.has(current.level)) &&
    (filters.path === "" || current.path === filters.path) &&
    (filters.text === "" || textOf(line).includes(filters.text)) &&
    (filters.state === "" || isState(current, filters.state))
  );
}
