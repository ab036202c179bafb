// Two things a page does by itself: what says data-refresh is asked for again, what says data-load is asked for when it
// is opened. Without this script every page works by its links.
"use strict";

const FRAGMENT = { headers: { "X-Fragment": "1" } };
let isPaused = false;

async function fragment(url) {
  const answer = await fetch(url, FRAGMENT);
  return answer.text();
}

async function refresh(part) {
  const block = part.querySelector("[data-refresh]");
  if (!block) return;
  if (!isPaused && !document.hidden && !block.contains(document.activeElement)) {
    try {
      part.innerHTML = await fragment(location.href);
    } catch {
      block.classList.add("stale");
    }
  }
  setTimeout(refresh, Number(block.dataset.refresh), part);
}

function addPause(part) {
  const button = document.createElement("button");
  button.className = "pause";
  button.textContent = "Pause";
  button.addEventListener("click", () => {
    isPaused = !isPaused;
    button.textContent = isPaused ? "Go on" : "Pause";
  });
  part.before(button);
}

async function load(details) {
  const place = details.querySelector(":scope > [data-loaded]");
  if (!details.open || details.dataset.state) return;
  details.dataset.state = "asked";
  place.setAttribute("aria-busy", "true");
  try {
    place.innerHTML = await fragment(details.dataset.load);
  } catch {
    delete details.dataset.state;
  }
  place.removeAttribute("aria-busy");
}

const part = document.querySelector("[data-part]");
const block = part.querySelector("[data-refresh]");
if (block) {
  addPause(part);
  setTimeout(refresh, Number(block.dataset.refresh), part);
}
// A toggle does not bubble; it is caught on its way down.
document.addEventListener("toggle", (event) => event.target.dataset.load && load(event.target), true);
