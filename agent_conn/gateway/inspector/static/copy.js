// Copies an element's text, and says so on it for a moment.

const SAID_MILLISECONDS = 1200;

export async function copy(element) {
  try {
    await navigator.clipboard.writeText(element.textContent);
  } catch {
    // Without leave, or over plain HTTP from another machine: what is selected can be copied by hand.
    getSelection().selectAllChildren(element);
    return;
  }
  element.classList.add("copied");
  setTimeout(() => element.classList.remove("copied"), SAID_MILLISECONDS);
}
