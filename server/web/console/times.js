/** Moments as people name them. `now` comes in, so that a test can choose it. */

const DAY = 86_400_000;

// Made once: to make one takes a hundred times as long as to use it, and a session may have thousands of messages.
const CLOCK = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit" });
const WHOLE = new Intl.DateTimeFormat([], { dateStyle: "full", timeStyle: "medium" });
const WEEKDAY = new Intl.DateTimeFormat([], { weekday: "short" });
const DAY_OF_YEAR = new Intl.DateTimeFormat([], { day: "numeric", month: "short" });
const DATE = new Intl.DateTimeFormat([], { day: "numeric", month: "short", year: "numeric" });

/** Whole days between two moments, by the reader's calendar. @param {Date} then @param {Date} now */
function daysBetween(then, now) {
  const midnight = (/** @type {Date} */ date) => new Date(date.getFullYear(), date.getMonth(), date.getDate()).getTime();
  // Rounded, as a day may have 23 or 25 hours.
  return Math.round((midnight(now) - midnight(then)) / DAY);
}

/** @param {string} timestamp @returns {string} the time of day, nothing for what is no moment */
export function timeOfDay(timestamp) {
  const date = new Date(timestamp);
  return Number.isNaN(date.getTime()) ? "" : CLOCK.format(date);
}

/** @param {string} timestamp @returns {string} all of it, for a tooltip */
export function wholeTime(timestamp) {
  const date = new Date(timestamp);
  return Number.isNaN(date.getTime()) ? "" : WHOLE.format(date);
}

/**
 * How long ago: `now`, `5 min ago`, `14:03`, `Yesterday`, `Tue`, `2 Jan`, `2 Jan 2025`.
 * @param {string} timestamp
 * @param {Date} [now]
 */
export function ago(timestamp, now = new Date()) {
  const date = new Date(timestamp);
  if (Number.isNaN(date.getTime())) return "";
  const minutes = Math.floor((now.getTime() - date.getTime()) / 60_000);
  if (minutes < 1) return "now";
  if (minutes < 60) return `${minutes} min ago`;
  const days = daysBetween(date, now);
  if (days < 1) return timeOfDay(timestamp);
  if (days === 1) return "Yesterday";
  if (days < 7) return WEEKDAY.format(date);
  return (date.getFullYear() === now.getFullYear() ? DAY_OF_YEAR : DATE).format(date);
}

/**
 * The heading that a session stands under.
 * @param {string} timestamp
 * @param {Date} [now]
 */
export function period(timestamp, now = new Date()) {
  const days = daysBetween(new Date(timestamp), now);
  if (days < 1) return "Today";
  if (days === 1) return "Yesterday";
  if (days < 7) return "Previous 7 days";
  if (days < 30) return "Previous 30 days";
  return days > 0 ? "Older" : "Undated";
}
