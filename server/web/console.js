/**
 * The page at `/`. It draws what parley.js knows and sends what the reader writes; it keeps no state of the
 * conversation itself. Its parts stand in `console/`, one file each; here they are started, and here the address of the
 * page decides which session lies on the desk.
 */

import { createSession } from "/parley.js";
import { authorised, rest } from "./console/access.js";
import { startAbout } from "./console/about.js";
import { startAgents } from "./console/agents.js";
import { startAudit } from "./console/audit.js";
import { reveal, startChat } from "./console/chat.js";
import { startComposer } from "./console/composer.js";
import { desk } from "./console/desk.js";
import { $ } from "./console/dom.js";
import { forEver } from "./console/keep.js";
import { startInbox } from "./console/inbox.js";
import { startKeys } from "./console/keys.js";
import { startLog } from "./console/log.js";
import { complain, startNotice } from "./console/notice.js";
import { closeSessions, startPanels } from "./console/panels.js";
import { startQueue } from "./console/queue.js";
import { startSessions } from "./console/sessions.js";
import { startStatus } from "./console/status.js";
import { startTheme } from "./console/theme.js";

/** The session of the last visit. */
const last = forEver("last");

/** @param {string} name */
const inHash = (name) => new URLSearchParams(location.hash.slice(1)).get(name);

/** A new session, unless the one on the desk is as good as new. */
async function startNew() {
  try {
    if (!desk.unused) {
      const made = await authorised((bearer) => createSession({ token: bearer }));
      location.hash = `s=${made.session_id}`;
    }
    closeSessions();
    $("composer").focus();
  } catch (error) {
    complain("No session could be made", error);
  }
}

/** Opens what the address names, else the session of the last visit, else a new one. */
async function arrive() {
  const id = inHash("s");
  if (id) {
    if (id !== desk.id) desk.open(id);
    last.set(id);
    const [message, call] = [inHash("m"), inHash("c")];
    if (call) reveal({ call });
    else if (message) reveal({ message });
    return;
  }
  const former = last.get();
  const found = former ? await rest(`/sessions/${encodeURIComponent(former)}`).catch(() => null) : null;
  if (found) location.replace(`#s=${found.id}`);
  else await startNew();
}

for (const start of [
  startTheme, startPanels, startQueue, startChat, startStatus, startComposer, startSessions, startLog, startKeys, startAgents, startInbox,
  startAbout, startAudit,
]) start();
startNotice(startNew);
$("new-session").addEventListener("click", startNew);
$("skip").addEventListener("click", (/** @type {Event} */ event) => {
  event.preventDefault(); // the address names the session
  $("composer").focus();
});
addEventListener("hashchange", () => {
  closeSessions();
  arrive();
});
await arrive();
