// The panel at the side: one connection's details, or the faults for the next one.

import { read } from "./api.js";
import * as sections from "./details.js";
import { el, setHidden, setText } from "./dom.js";
import { faultForm, pendingList } from "./faults.js";
import { levelChip } from "./levels.js";

const READ_MILLISECONDS = 500;
// Where the drawer covers the page, what is under it is out of reach.
const COVERS = matchMedia("(max-width: 900px)");

export class Drawer {
  constructor(store, onClose) {
    this.store = store;
    this.onClose = onClose;
    this.element = document.getElementById("drawer");
    this.title = document.getElementById("drawer-title");
    this.body = document.getElementById("drawer-body");
    this.shown = null;
    this.line = null;
    this.boxes = {};
    this.written = {};
    this.readAt = -Infinity;
    this.timer = null;
    document.getElementById("drawer-close").addEventListener("click", () => this.close());
    COVERS.addEventListener("change", () => this.#setReach());
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !this.element.hidden) this.close();
    });
  }

  /** Shows a line, by the connection that stands for it or by another of it. */
  async showLine(line, number = null) {
    const current = this.store.lines.get(line)?.current;
    if (!current) return;
    this.line = line;
    this.shown = number ?? current.number;
    const names = ["line", "facts", "phases", "transcript", "messages", "faults", "headers"];
    const titles = ["", "", "Phases", "Transcript", "Messages", "Inject a fault", "Headers"];
    this.#lay(names, titles);
    this.#open();
    await this.#refresh();
    await this.#offerFaults();
  }

  /** Shows the faults for the next connection. */
  async showFaults() {
    this.line = null;
    this.shown = null;
    this.#lay(["form", "pending"], ["", "Waiting for a connection"]);
    setText(this.title, "Faults on the next connection");
    this.#open();
    this.#writePending();
    this.boxes.form.replaceChildren(await faultForm(() => null));
  }

  /** Takes over what changed in the store. */
  update(changed, counted) {
    if (this.element.hidden) return;
    if (this.shown === null) this.#writePending();
    else if (changed.has(this.line) || counted.has(this.line)) this.#refreshSoon();
  }

  close() {
    const line = this.line;
    setHidden(this.element, true);
    this.#setReach();
    this.shown = this.line = null;
    clearTimeout(this.timer);
    this.onClose(line);
  }

  #open() {
    setHidden(this.element, false);
    this.#setReach();
    this.body.scrollTop = 0;
    this.title.focus();
  }

  #setReach() {
    const covered = !this.element.hidden && COVERS.matches;
    for (const part of document.querySelectorAll(".top, main, .skip")) part.inert = covered;
  }

  #lay(names, titles) {
    this.written = {};
    this.boxes = Object.fromEntries(names.map((name) => [name, el("div", { class: "box-body" })]));
    this.body.replaceChildren(
      ...names.map((name, index) => {
        const heading = titles[index] ? el("h3", {}, titles[index]) : null;
        return el("section", { class: `box box-${name}` }, heading, this.boxes[name]);
      }),
    );
  }

  #refreshSoon() {
    if (this.timer !== null) return;
    const left = Math.max(0, READ_MILLISECONDS - (performance.now() - this.readAt));
    this.timer = setTimeout(() => {
      this.timer = null;
      this.#refresh();
    }, left);
  }

  async #refresh() {
    const number = this.shown;
    this.readAt = performance.now();
    const details = await read(`/inspector/connections/${number}`);
    if (number !== this.shown) return;
    this.#writeLine(number);
    if (details === null) return;
    this.#write("facts", [details.row], () =>
      sections.facts(details.row, this.store.date(sections.start(details.row))),
    );
    this.#write("phases", [details.row.times], () => sections.phases(details.row, this.store.now()));
    this.#write("transcript", details.transcript, () => sections.transcript(details));
    this.#write("messages", details.messages, () => sections.messages(details));
    this.#write("headers", details.headers, () => sections.headers(details));
  }

  #writeLine(number) {
    const line = this.store.lines.get(this.line);
    const row = this.store.connection(number);
    if (!line || !row) {
      setText(this.title, `#${number} is not kept any more`);
      return;
    }
    const members = [...line.members.values()].map((one) => [one.number, one.level, one.state]);
    this.#write("line", [number, members], () => {
      this.title.replaceChildren(`#${number} `, levelChip(row.level), ` ${row.state}`);
      if (line.members.size < 2) return el("span");
      return sections.lineage(line, number, (other) => this.showLine(this.line, other));
    });
    // A connection has become another's successor while it was being looked at.
    if (this.boxes.faults && row.state !== "open") this.#offerFaults();
  }

  /** Writes a section if what it shows is another; what has focus or scroll in it stays. */
  #write(name, data, make) {
    const text = JSON.stringify(data);
    if (this.written[name] === text) return;
    this.written[name] = text;
    const scrolled = this.boxes[name].querySelector(".scroll");
    const stuck = !scrolled || scrolled.scrollTop + scrolled.clientHeight >= scrolled.scrollHeight - 4;
    const [top, focused] = [scrolled?.scrollTop ?? 0, scrolled === document.activeElement];
    this.boxes[name].replaceChildren(make());
    const scroll = this.boxes[name].querySelector(".scroll");
    if (!scroll) return;
    scroll.scrollTop = stuck ? scroll.scrollHeight : top;
    if (focused && scrolled) scroll.focus();
  }

  async #offerFaults() {
    const [number, box] = [this.shown, this.boxes.faults];
    const open = this.store.connection(number)?.state === "open";
    if (!open) {
      const told = box.querySelector(".outcome")?.textContent ?? "";
      this.#write("faults", [number, "over"], () =>
        el("p", { class: "muted" }, `${told} The connection is not open.`.trim()),
      );
      return;
    }
    const form = await faultForm(() => number);
    if (this.boxes.faults === box) this.#write("faults", [number, "open"], () => form);
  }

  #writePending() {
    const faults = this.store.status?.faults ?? [];
    this.#write("pending", faults, () => pendingList(faults));
  }
}
