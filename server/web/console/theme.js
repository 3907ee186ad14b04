/** Light, dark, or as the system has it. The choice is remembered in this browser and shared by its tabs. */

import { $ } from "./dom.js";
import { forEver } from "./keep.js";

const choice = forEver("theme");

/** @param {string|null} theme */
function wear(theme) {
  const known = theme === "light" || theme === "dark" ? theme : "system";
  if (known === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = known;
  const input = $("themes").querySelector(`[value="${known}"]`);
  input.checked = true;
}

export function startTheme() {
  wear(choice.get());
  $("themes").addEventListener("change", (/** @type {any} */ { target }) => {
    choice.set(target.value === "system" ? "" : target.value);
    wear(target.value);
  });
  addEventListener("storage", ({ key, newValue }) => {
    if (key === "parley.theme") wear(newValue);
  });
}
