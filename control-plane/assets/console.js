// What pages do better with a script: copy, refresh parts by themselves, open a dialog in place. All of it can be done without.
"use strict";

(() => {
  const say = (text) => {
    const place = document.getElementById("copied");
    if (place) place.textContent = text;
  };

  // A text that is shown once is copied without selecting it.
  const copies = (button) => {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const source = document.getElementById(button.dataset.copies);
      try {
        await navigator.clipboard.writeText(source.textContent);
      } catch {
        // No permission, or plain HTTP: selected, the reader's own keys copy it.
        getSelection().selectAllChildren(source);
        button.textContent = "Selected: press Ctrl+C";
        say("Selected. Copy it with your keyboard.");
        return;
      }
      button.textContent = "Copied";
      say("Copied.");
    });
  };

  // One's own address goes to the end of the list.
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

  // A form whose answer shows a secret is sent once: a second click would get another answer, and lose the first.
  const once = (form) => {
    form.addEventListener("submit", (event) => {
      if (event.submitter?.name) return;
      if (form.dataset.sent) return event.preventDefault();
      form.dataset.sent = "yes";
    });
  };

  // A question is asked in place; without a script its link leads to a page.
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

  // A part asks for itself anew: at once where its answer waits for news, else after some seconds.
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
        // The control plane is away, or one is signed out: the page as it is says no less than before.
      }
      if (!fresh) return live(part, failures + 1);
      // Whoever is about to press a button in it is left alone.
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
    // "Look again" is for pages that can't by themselves.
    document.querySelectorAll(".again").forEach((link) => (link.hidden = true));
    // What has to be corrected first.
    document.querySelector("[aria-invalid=true]")?.focus();
  };

  // A page that is left takes its secret with it, whatever the browser keeps of it.
  addEventListener("pagehide", () => {
    for (const part of document.querySelectorAll("[data-secret]")) part.replaceChildren("This was shown once.");
  });

  // A form that the browser kept as it was when it was sent would be sent again, with a nonce that is used up.
  addEventListener("pageshow", (event) => {
    if (event.persisted && document.querySelector("[data-once]")) location.reload();
  });

  // Menus close by Escape and by a click elsewhere.
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
