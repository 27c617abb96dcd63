"use strict";
(() => {
  const often = 5000, seldom = 30000, patience = 10000;
  const search = document.getElementById("search");
  const word = document.getElementById("q");
  let timer, turn = 0, searched = word?.value;

  // Makes `old` what `fresh` is, and touches nothing that is so already: what is selected, focused or, while the search
  // stays the same, unfolded by hand remains.
  const become = (old, fresh, folds) => {
    for (const { name, value } of [...fresh.attributes]) {
      if (old.getAttribute(name) !== value && (folds || name !== "open")) old.setAttribute(name, value);
    }
    for (const { name } of [...old.attributes]) {
      if (!fresh.hasAttribute(name) && (folds || name !== "open")) old.removeAttribute(name);
    }
    let at = old.firstChild;
    for (const wanted of [...fresh.childNodes]) {
      const same = wanted.id ? document.getElementById(wanted.id) : null;
      let found = same && same.parentNode === old ? same : null;
      if (!found && !wanted.id && at && !at.id && at.nodeName === wanted.nodeName) found = at;
      if (!found) {
        old.insertBefore(document.importNode(wanted, true), at);
        continue;
      }
      if (found === at) at = at.nextSibling;
      else old.insertBefore(found, at);
      if (found.nodeType === Node.ELEMENT_NODE) become(found, wanted, folds);
      else if (found.data !== wanted.data) found.data = wanted.data;
    }
    while (at) {
      const next = at.nextSibling;
      at.remove();
      at = next;
    }
  };

  const show = (text) => {
    const fresh = new DOMParser().parseFromString(text, "text/html");
    if (!fresh.getElementById("banner")) throw new Error("this is no status page");
    document.title = fresh.title;
    const folds = word && searched !== word.value;
    searched = word?.value;
    for (const id of ["icon", "banner", "main"]) become(document.getElementById(id), fresh.getElementById(id), folds);
  };

  const lost = (why) => {
    const live = document.getElementById("live");
    if (!live.dataset.lost) live.dataset.lost = live.textContent;
    live.classList.add("lost");
    live.textContent = `${why}; shown is what was true ${live.dataset.lost}`;
  };

  const refresh = async () => {
    clearTimeout(timer);
    const mine = ++turn;
    try {
      const answer = await fetch(location.href, {
        headers: { accept: "text/html" }, cache: "no-store", signal: AbortSignal.timeout(patience),
      });
      const text = await answer.text();
      // An answer to an earlier word than the one that is typed now.
      if (mine !== turn) return;
      if ((answer.headers.get("content-type") || "").startsWith("text/html")) show(text);
      else lost(`no page any more (${answer.status})`);
    } catch {
      if (mine !== turn) return;
      lost("no answer");
    }
    again();
  };

  const again = () => {
    clearTimeout(timer);
    timer = setTimeout(refresh, document.hidden ? seldom : often);
  };

  if (search) {
    let pause;
    const find = () => {
      const address = new URL(location.href);
      if (word.value.trim()) address.searchParams.set("q", word.value);
      else address.searchParams.delete("q");
      history.replaceState(null, "", address);
      refresh();
    };
    word.addEventListener("input", () => {
      clearTimeout(pause);
      pause = setTimeout(find, 150);
    });
    search.addEventListener("submit", (event) => {
      event.preventDefault();
      clearTimeout(pause);
      find();
    });
    document.addEventListener("keydown", (event) => {
      if (event.key === "/" && !event.ctrlKey && !event.metaKey && !event.altKey && document.activeElement !== word) {
        event.preventDefault();
        word.focus();
      }
    });
  }
  document.addEventListener("visibilitychange", () => document.hidden || refresh());
  again();
})();
