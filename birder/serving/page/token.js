// Asking a person for the token, when the server wants one and the address had none.

import { byId, el, open } from "./dom.js";

/** The token, or null if the person closes the dialog. `wrong` if there was one, which was refused. */
export function askToken(wrong) {
  return new Promise((resolve) => {
    const dialog = byId("token");
    const input = el("input", { id: "token-text", type: "password", autocomplete: "off", required: true, "aria-describedby": "token-why" });
    let given = null;
    const submit = (event) => {
      event.preventDefault();
      given = input.value.trim() || null;
      dialog.close();
    };
    dialog.addEventListener("close", () => resolve(given), { once: true });
    open(dialog, "This server wants a token", el("form", { on: { submit } },
      el("p", { id: "token-why" }, wrong && "The server does not know this token. ",
        "It stands in the address that birder serve printed, behind #token=, or in the file that it was given."),
      el("label", { for: input.id }, "Token"), input,
      el("div", { class: "actions" }, el("button", { type: "submit", class: "primary" }, "Go on"))));
    input.focus();
  });
}
