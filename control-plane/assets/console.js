// Progressive enhancement: copying, automatic refreshes, dialogs in place. Every page works without it.
"use strict";

(() => {
  const say = (text) => {
    const place = document.getElementById("copied");
    if (place) place.textContent = text;
  };

  // Copies a text without selecting it.
  const copies = (button) => {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const source = document.getElementById(button.dataset.copies);
      try {
        await navigator.clipboard.writeText(source.textContent);
      } catch {
        // No permission, or plain HTTP: select the text, so that the reader can copy it.
        getSelection().selectAllChildren(source);
        button.textContent = "Selected: press Ctrl+C";
        say("Selected. Copy it with your keyboard.");
        return;
      }
      button.textContent = "Copied";
      say("Copied.");
    });
  };

  // Appends the reader's own address to the list.
  const adds = (button) => {
    button.hidden = false;
    button.addEventListener("click", () => {
      const own = document.getElementById(button.dataset.adds).textContent.trim();
      const list = document.getElementById(button.dataset.to);
      const lines = list.value.split(/\s+/).filter(Boolean);
      if (!lines.includes(own)) list.value = [...lines, own].join("\n");
      list.focus();
    });
  };

  // Sends a form whose answer shows a secret only once: a second click would replace that answer with another.
  const once = (form) => {
    form.addEventListener("submit", (event) => {
      if (event.submitter?.name) return;
      if (form.dataset.sent) return event.preventDefault();
      form.dataset.sent = "yes";
    });
  };

  // Opens a dialog in place; without a script its link leads to a page.
  const opens = (link) => {
    const dialog = document.getElementById(link.dataset.opens);
    if (!dialog?.showModal) return;
    link.setAttribute("aria-haspopup", "dialog");
    link.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      dialog.showModal();
    });
    for (const close of dialog.querySelectorAll("[data-closes]")) {
      close.addEventListener("click", (event) => {
        event.preventDefault();
        dialog.close();
      });
    }
  };

  // Refreshes a part after `data-every` seconds, by default 1. Each failure in a row doubles the pause, up to a minute.
  const live = (part, failures = 0) => {
    const url = part.dataset.live;
    const pause = Math.min(Number(part.dataset.every ?? 1) * 1000 * 2 ** failures, 60_000);
    setTimeout(async () => {
      if (document.hidden) return live(part, failures);
      let fresh = null;
      try {
        const answer = await fetch(url, { headers: { accept: "text/html" }, redirect: "error" });
        if (answer.status === 404) return;
        if (answer.ok) fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById(part.id);
      } catch {
        // The control plane is unreachable, or the session has ended: keep what is shown.
      }
      if (!fresh) return live(part, failures + 1);
      // Don't replace a part that has the focus: the reader may be about to press its button.
      if (!part.contains(document.activeElement)) {
        part.replaceWith(fresh);
        part = fresh;
      }
      if (part.dataset.live) live(part);
    }, pause);
  };

  const start = () => {
    document.querySelectorAll("[data-copies]").forEach(copies);
    document.querySelectorAll("[data-adds]").forEach(adds);
    document.querySelectorAll("[data-once]").forEach(once);
    document.querySelectorAll("[data-opens]").forEach(opens);
    document.querySelectorAll("[data-live]").forEach((part) => live(part));
    // "Refresh" is for pages without a script.
    document.querySelectorAll(".again").forEach((link) => (link.hidden = true));
    // Focus the first field with an error.
    document.querySelector("[aria-invalid=true]")?.focus();
  };

  // Remove the secret when the page is left, so that a page from the browser's cache doesn't show it again.
  addEventListener("pagehide", () => {
    for (const part of document.querySelectorAll("[data-secret]")) part.replaceChildren("This was shown once.");
  });

  // A form restored from the browser's cache has a nonce that is used up: load a new one.
  addEventListener("pageshow", (event) => {
    if (event.persisted && document.querySelector("[data-once]")) location.reload();
  });

  // Close menus on Escape or on a click elsewhere.
  addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const menu of document.querySelectorAll("details.account[open]")) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
  });
  addEventListener("click", (event) => {
    for (const menu of document.querySelectorAll("details.account[open]")) if (!menu.contains(event.target)) menu.open = false;
  });

  start();
})();
