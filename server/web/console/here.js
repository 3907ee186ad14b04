/** The reader among those who are on the session: who this tab is, and what it may do. */

import { desk } from "./desk.js";

/** As names of clients are told from it. @returns {{me: string|null, clients: any[]}} */
export const here = () => ({ me: desk.session?.clientId ?? null, clients: desk.conversation.clients });

/** Whether the reader may only read. */
export function observing() {
  const { me, clients } = here();
  return clients.find((client) => client.client_id === me)?.role === "observer";
}
