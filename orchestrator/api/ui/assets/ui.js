// What the pages do beyond htmx: the token of forms, banners, times in the reader's own zone, what comes live.
"use strict";
(() => {
  const banner = document.getElementById("banner");

  function say(text) {
    banner.textContent = text;
    banner.hidden = false;
  }

  // Every request that htmx sends has the token; forms that are posted plainly have it in a field.
  document.addEventListener("htmx:configRequest", (event) => {
    event.detail.headers["X-CSRF-Token"] = document.querySelector('meta[name="csrf-token"]').content;
  });
  document.addEventListener("htmx:beforeRequest", () => { banner.hidden = true; });
  document.addEventListener("htmx:responseError", (event) => {
    const box = new DOMParser().parseFromString(event.detail.xhr.responseText, "text/html");
    const words = box.querySelector(".words");
    say(words ? words.textContent : `The server has answered ${event.detail.xhr.status}; nothing on this page has changed.`);
  });
  document.addEventListener("htmx:sendError", () => say("The server cannot be reached; nothing on this page has changed."));
  document.addEventListener("htmx:timeout", () => say("The server has not answered in time."));

  const format = new Intl.DateTimeFormat(undefined, { dateStyle: "short", timeStyle: "medium" });
  function localise(root) {
    for (const one of root.querySelectorAll("time[datetime]:not([title])")) {
      one.title = one.textContent;
      one.textContent = format.format(new Date(one.dateTime));
    }
  }
  localise(document);
  document.addEventListener("htmx:load", (event) => localise(event.target));

  // Many steps may come together: one request for all of them, and the next one when its answer is on the page.
  let asking = null, isChanged = false, waiting = null;
  function ask() {
    waiting = null;
    isChanged = false;
    document.body.dispatchEvent(new Event("ui-changed"));
  }
  function changed() {
    isChanged = true;
    if (!asking) waiting ??= setTimeout(ask, 150);
  }
  document.addEventListener("htmx:beforeRequest", (event) => {
    if (event.detail.elt.id === "standing") asking = event.detail.xhr;
  });
  document.addEventListener("htmx:afterRequest", (event) => {
    // By its request: the element has been replaced meanwhile.
    if (event.detail.xhr !== asking) return;
    asking = null;
    if (isChanged) waiting ??= setTimeout(ask, 150);
  });

  // An element with data-live follows a stream of events; each tells it to ask for its part of the page again.
  function follow(element) {
    const source = new EventSource(element.dataset.live);
    for (const name of ["process.event", "step.event", "message"]) source.addEventListener(name, changed);
    source.addEventListener("open", () => {
      if (element.dataset.lost) changed();
      delete element.dataset.lost;
      element.textContent = "live";
      banner.hidden = true;
    });
    source.addEventListener("end", (event) => {
      source.close();
      if (JSON.parse(event.data).reason === "unauthorized") ended();
      else setTimeout(() => follow(element), 2000);
    });
    source.addEventListener("error", () => {
      element.dataset.lost = "yes";
      element.textContent = "not live";
      if (source.readyState === EventSource.CLOSED) ended();
      else say("The connection is lost: this page is not live. Trying again …");
    });
    function ended() {
      element.textContent = "not live";
      say("You are signed out, or the server refuses the connection: this page is not live any more. Reload it to sign in.");
    }
    window.addEventListener("pagehide", () => source.close());
  }
  for (const one of document.querySelectorAll("[data-live]")) follow(one);

  // Check boxes and selects of a filter send it at once.
  document.addEventListener("change", (event) => {
    const form = event.target.closest("form[data-at-once]");
    if (form) form.requestSubmit();
  });
})();
