// Keeps a page up to date while it is looked at. Without this script the pages work as they are.
"use strict";

(() => {
  const live = document.body.dataset.live;
  const state = document.getElementById("link-state");
  const pause = document.getElementById("pause");
  let seen = document.body.dataset.state || "";
  let stream = null;
  let isPaused = false;
  let isGone = false;
  let retryAt = 1000;
  let worry = 0;

  // Times that go on: how long ago something began.
  const size = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  function inWords(seconds) {
    const whole = Math.max(0, Math.floor(seconds));
    const place = size.findIndex(([unit]) => whole >= unit);
    if (place < 0) return "0 s";
    const [unit, name] = size[place];
    const rest = whole % unit;
    const next = size[place + 1];
    const small = next ? Math.floor(rest / next[0]) : 0;
    return `${Math.floor(whole / unit)} ${name}` + (small ? ` ${small} ${next[1]}` : "");
  }
  // The server's clock counts, not this machine's.
  const skew = Number(document.body.dataset.now) - Date.now();

  function tick() {
    for (const one of document.querySelectorAll("time.since")) {
      const text = inWords((Date.now() + skew - Date.parse(one.dateTime)) / 1000);
      if (one.textContent !== text) one.textContent = text;
    }
  }

  // Puts new HTML into an element, and leaves open what was open and focused what was focused.
  function fill(element, html) {
    const open = [...element.querySelectorAll("details[open][id]")].map((one) => one.id);
    const focused = element.contains(document.activeElement) ? document.activeElement.id : "";
    const scrolled = [...element.querySelectorAll(".scroll")].map((one) => one.scrollTop);
    element.innerHTML = html;
    for (const id of open) document.getElementById(id)?.setAttribute("open", "");
    element.querySelectorAll(".scroll").forEach((one, place) => { one.scrollTop = scrolled[place] || 0; });
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  }

  function rowOf(html) {
    const holder = document.createElement("template");
    holder.innerHTML = html.trim();
    return holder.content.firstElementChild;
  }

  // A row that is the same stays the same element, so that it keeps the focus.
  function arrange(order, rows) {
    const body = document.getElementById("rows");
    const kept = new Map([...body.children].map((row) => [row.id, row]));
    let place = body.firstElementChild;
    for (const id of order) {
      const row = rows.get(id) || kept.get(id);
      if (!row) continue;
      const old = kept.get(id);
      if (old && old !== row) {
        if (place === old) place = row;
        replaceRow(old, row);
      }
      kept.delete(id);
      if (row === place) place = place.nextElementSibling;
      else body.insertBefore(row, place);
    }
    // What moved on to the next page stays with what was found there.
    const gone = [...kept.values()];
    const moved = goneOn ? gone.filter((row) => row.id < order.at(-1)) : [];
    for (const row of gone) row.remove();
    document.getElementById("older").prepend(...moved);
  }

  function replaceRow(old, row) {
    const hadFocus = old.contains(document.activeElement);
    old.replaceWith(row);
    if (hadFocus) row.querySelector("a")?.focus({ preventScroll: true });
  }

  function apply({ parts, order }) {
    const rows = new Map();
    for (const [id, html] of Object.entries(parts)) {
      const element = document.getElementById(id);
      if (id.startsWith("job-")) rows.set(id, rowOf(html));
      else if (id === "more" && goneOn) continue;
      else if (element) fill(element, html);
    }
    const body = document.getElementById("rows");
    if (order) arrange(order, rows);
    else if (body) for (const [id, row] of rows) { const old = document.getElementById(id); if (old) replaceRow(old, row); }
    if (body) for (const row of body.children) document.querySelector(`#older > #${CSS.escape(row.id)}`)?.remove();
    tick();
    goOn();
  }

  // A search that was cut goes on by itself until there is a page of jobs, or no more.
  let goneOn = false;
  let isLooking = false;
  async function goOn() {
    const next = document.getElementById("next");
    if (isLooking || !next || next.dataset.cut === undefined || document.hidden) return;
    const found = document.querySelectorAll("#rows > tr, #older > tr").length;
    if (found >= 50) return;
    isLooking = goneOn = true;
    try {
      const answer = await fetch(next.href, { credentials: "same-origin" });
      if (!answer.ok) return;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const older = document.getElementById("older");
      for (const row of page.querySelectorAll("#rows > tr")) if (!document.getElementById(row.id)) older.append(document.adoptNode(row));
      const more = page.getElementById("more");
      if (more) fill(document.getElementById("more"), more.innerHTML);
      isLooking = false;
      setTimeout(goOn, 50);
    } catch {
      // The link is still there to be followed.
    } finally {
      isLooking = false;
    }
  }

  function say(words, kind) {
    if (state.textContent === words) return;
    state.textContent = words;
    state.className = kind;
  }

  function worried() {
    if (!worry) worry = setTimeout(() => say("Reconnecting…", "off"), 3000);
  }

  function calm() {
    clearTimeout(worry);
    worry = 0;
    retryAt = 1000;
    say("Live", "on");
  }

  // The job was removed, so that nothing more is to come.
  function part() {
    isGone = true;
    disconnect();
    clearTimeout(worry);
    say("No longer kept", "off");
    pause.remove();
    document.getElementById("actions")?.replaceChildren();
    const notice = document.createElement("p");
    notice.className = "notice";
    notice.textContent = "This job is no longer kept. Below is what was last known of it.";
    document.getElementById("notice").replaceChildren(notice);
  }

  // Comes back later, and asks first why there was no stream, as the browser does not tell.
  function comeBackLater(from) {
    setTimeout(comeBack, retryAt, from);
    retryAt = Math.min(retryAt * 2, 30000);
  }

  async function comeBack(from) {
    if (stream || isPaused || document.hidden) return;
    const answer = await fetch(from, { method: "HEAD", credentials: "same-origin" }).catch(() => null);
    if (answer?.ok) return connect();
    if (answer?.status === 404) return part();
    if (answer?.status === 503) {
      clearTimeout(worry);
      say("Not available now, trying again…", "off");
    }
    comeBackLater(from);
  }

  function connect() {
    if (stream || isPaused || isGone || document.hidden) return;
    const from = new URL(live, location.href);
    from.searchParams.set("state", seen);
    stream = new EventSource(from);
    stream.onopen = calm;
    stream.onmessage = (event) => {
      seen = event.lastEventId;
      apply(JSON.parse(event.data));
    };
    stream.addEventListener("gone", part);
    stream.onerror = () => {
      worried();
      // The browser tries again by itself, unless it got an answer that was no stream.
      if (stream && stream.readyState === EventSource.CLOSED) {
        stream = null;
        comeBackLater(from);
      }
    };
  }

  function disconnect() {
    stream?.close();
    stream = null;
  }

  if (live) {
    state.parentElement.hidden = false;
    pause.addEventListener("click", () => {
      isPaused = !isPaused;
      pause.setAttribute("aria-pressed", String(isPaused));
      pause.textContent = isPaused ? "Go on" : "Pause";
      if (isPaused) { disconnect(); say("Paused", ""); } else connect();
    });
    // Nobody looks at a page in the background; nothing is asked of the server for it.
    document.addEventListener("visibilitychange", () => (document.hidden ? disconnect() : connect()));
    addEventListener("pagehide", disconnect);
    addEventListener("pageshow", connect);
    connect();
    goOn();
  }
  tick();
  setInterval(tick, 1000);

  // What was just done is told once, not again with each reload.
  const address = new URL(location.href);
  if (address.searchParams.has("done")) {
    address.searchParams.delete("done");
    address.searchParams.delete("n");
    history.replaceState(null, "", address);
  }
})();
