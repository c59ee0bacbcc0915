// The gateway's server-sent events, for as long as the page is open.

const RETRY_MILLISECONDS = 1500;

/** Calls `on[event](data)` for each event, and `onState` with "live" or "lost". */
export function listen(on, onState) {
  const source = new EventSource("/inspector/events");
  for (const [name, handle] of Object.entries(on)) {
    source.addEventListener(name, (event) => handle(JSON.parse(event.data)));
  }
  source.addEventListener("open", () => onState("live"));
  source.addEventListener("error", () => {
    onState("lost");
    // The browser tries again by itself, but not after an answer that is no stream.
    if (source.readyState === EventSource.CLOSED) {
      setTimeout(() => listen(on, onState), RETRY_MILLISECONDS);
    }
  });
}
