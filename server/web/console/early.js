// Before the first paint, and hence no module: a page that is wanted dark must not flash up light.
"use strict";
try {
  const theme = localStorage.getItem("parley.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // Storage is forbidden: the page looks as the system does.
}
