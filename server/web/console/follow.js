/**
 * Keeps the end of the conversation in sight while it grows, until the reader scrolls up; then it says when there is
 * something new, and leads back.
 */

import { $ } from "./dom.js";

/** Pixels from the end at which the reader is taken to be there. */
const NEAR = 48;
/** Pixels from the end at which the way back is offered. */
const FAR = 160;

let following = true;
let last = 0;

const distance = () => {
  const scroll = $("scroll");
  return scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight;
};

/** Goes to the end and stays there. */
export function followAgain() {
  following = true;
  settle();
}

/** Stays where the reader is from now on. */
export function stay() {
  following = false;
  settle();
}

/** After the conversation has changed its size. */
function settle() {
  const scroll = $("scroll");
  if (following) scroll.scrollTop = scroll.scrollHeight;
  last = scroll.scrollTop;
  $("jump").hidden = following || distance() < FAR;
  if ($("jump").hidden) delete $("jump").dataset.news;
}

/** Something was said. */
export function news() {
  if (!following) $("jump").dataset.news = "true";
}

export function startFollowing() {
  const scroll = $("scroll");
  scroll.addEventListener("scroll", () => {
    // Only a reader scrolls up.
    if (distance() < NEAR) following = true;
    else if (scroll.scrollTop < last - 1) following = false;
    last = scroll.scrollTop;
    $("jump").hidden = following || distance() < FAR;
    if ($("jump").hidden) delete $("jump").dataset.news;
  }, { passive: true });
  const sizes = new ResizeObserver(settle);
  sizes.observe($("paper"));
  sizes.observe(scroll);
  $("jump").addEventListener("click", () => {
    followAgain();
    scroll.focus({ preventScroll: true });
  });
}
