// Why the gateway is gone, and since when.

import { setAttribute, setHidden, setText } from "./dom.js";
import { clock } from "./format.js";

const AGAIN = "The page goes on by itself once the gateway is back.";

export class Gone {
  constructor() {
    this.live = document.getElementById("live");
    this.banner = document.getElementById("gone");
    this.since = null;
  }

  get lost() {
    return this.since !== null;
  }

  showLive() {
    this.since = null;
    this.#show("live", "Live");
    setHidden(this.banner, true);
  }

  showLost(why) {
    this.since ??= new Date();
    this.#show("lost", "Disconnected, reconnecting");
    setText(this.banner, words(why, clock(this.since)));
    setHidden(this.banner, false);
  }

  #show(state, text) {
    setAttribute(this.live, "data-state", state);
    setText(this.live.firstElementChild, text);
  }
}

function words(why, since) {
  if (why === "stopped") return `The gateway was stopped at ${since}. ${AGAIN}`;
  if (why === "silent") {
    return `No answer since ${since}: the gateway was killed or crashed, or the network is down. ${AGAIN}`;
  }
  return `The gateway refuses this page: ${why}. Reload it if a token is asked for.`;
}
