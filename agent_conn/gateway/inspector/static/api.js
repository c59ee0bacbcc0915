// Requests to the gateway that this page came from.

/** Sends JSON; gives what was answered, or `{ error }` with the text of what went wrong. */
export async function send(method, path, body) {
  try {
    const response = await fetch(path, {
      method,
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body ?? {}),
    });
    const answer = await response.json().catch(() => ({}));
    if (response.ok) return { ...answer, error: null };
    return { error: answer.error ?? `The gateway answered ${response.status}.` };
  } catch {
    return { error: "The gateway does not answer." };
  }
}

/** Gives the JSON at a path, or null where there is none. */
export async function read(path) {
  try {
    const response = await fetch(path);
    return response.ok ? await response.json() : null;
  } catch {
    return null;
  }
}

/** Gives why a path is refused, or null where it is not, or where nobody answers. */
export async function refusal(path) {
  const ended = new AbortController();
  try {
    const response = await fetch(path, { signal: ended.signal });
    if (response.ok) return null;
    const answer = await response.json().catch(() => ({}));
    return answer.error ?? `status ${response.status}`;
  } catch {
    return null;
  } finally {
    ended.abort();
  }
}
