"use strict";
// Shows what /api/v1/events tells. Whatever comes from there is put in as text, never as markup.
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const POINTS = 60;
  const SOON_DAYS = 30;
  const HAPPENED = 12;
  const byId = (id) => document.getElementById(id);
  const daemons = new Map();
  const cards = new Map();
  let changes = [];
  let taken = [];
  let steering = { enabled: false };
  let credentials = null;

  function make(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name === "class") element.className = value;
      else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }

  function setText(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  // Figures as people read them.
  const units = (value, step, names) => {
    let place = 0;
    while (value >= step && place < names.length - 1) { value /= step; place += 1; }
    const digits = value >= 100 || Number.isInteger(value) ? 0 : value >= 10 ? 1 : 2;
    return value.toFixed(digits) + names[place];
  };
  const count = (value) => value < 10000 ? String(Math.round(value)) : units(value, 1000, ["", " k", " M", " G", " T"]);
  const rate = (value) => units(value, 1000, ["", " k", " M", " G"]) + "/s";
  const bytes = (value) => units(value, 1024, [" B", " KiB", " MiB", " GiB", " TiB", " PiB"]);
  const span = (seconds) => {
    const parts = [[86400, "d"], [3600, "h"], [60, "min"]];
    for (const [size, name] of parts) {
      if (seconds >= size * 2 || (seconds >= size && size === 60)) return Math.floor(seconds / size) + " " + name;
    }
    return Math.max(0, Math.floor(seconds)) + " s";
  };
  // The end of the year 9999 at most, which is the last that a certificate can name.
  const clock = (at) => new Date(Math.min(at, 253402300799) * 1000);

  // A chart: the history as an area and a line; a second history as a dashed line.
  function chart(title) {
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", "0 0 100 40");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("aria-hidden", "true");
    const paths = ["area", "line", "line second"].map((name) => {
      const path = document.createElementNS(SVG, "path");
      path.setAttribute("class", name);
      svg.append(path);
      return path;
    });
    const output = make("output", {});
    const figure = make("figure", { class: "chart" }, make("figcaption", {}, title, output), svg);
    const line = (figures, top) => {
      const start = POINTS - figures.length;
      const at = (figure, place) =>
        ((start + place) * 100 / (POINTS - 1)).toFixed(2) + " " + (38 - 36 * figure / top).toFixed(2);
      return figures.length < 2 ? "" : "M" + figures.map(at).join("L");
    };
    return {
      figure,
      show(text, first, second) {
        setText(output, text);
        const top = Math.max(1, ...first, ...(second || []));
        const path = line(first, top);
        const start = ((POINTS - first.length) * 100 / (POINTS - 1)).toFixed(2);
        paths[0].setAttribute("d", path && path + "L100 40L" + start + " 40Z");
        paths[1].setAttribute("d", path);
        paths[2].setAttribute("d", second ? line(second, top) : "");
      },
    };
  }

  function card(name) {
    const title = make("h2", { id: "name-" + name }, name);
    const badge = make("span", { class: "badge" });
    const sub = make("p", { class: "sub" });
    const error = make("p", { class: "error", hidden: "" });
    const work = chart("");
    const traffic = chart("Bytes/s in, out");
    const facts = {};
    const list = make("dl", {});
    for (const [key, label] of [["connections", "Connections"], ["taken", "Taken"], ["refused", "Refused"],
      ["bad", "Bad input"], ["uptime", "Up for"], ["pid", "Process"]]) {
      facts[key] = make("dd", {});
      list.append(make("div", {}, make("dt", {}, label), facts[key]));
    }
    const limits = make("ul", { class: "limits", "aria-label": "Limits met" });
    const rows = make("tbody", {});
    const listeners = make("details", {}, make("summary", {}, "Listeners"),
      make("div", { class: "scroll" }, make("table", {}, make("thead", {}, make("tr", {},
        make("th", { scope: "col" }, "Name"), make("th", { scope: "col" }, "Endpoint"),
        make("th", { scope: "col" }, "Now"), make("th", { scope: "col" }, "Taken"),
        make("th", { scope: "col" }, "Refused"))), rows)));
    const crew = make("tbody", {});
    const workers = make("div", { class: "scroll workers", hidden: "" }, make("table", {}, make("thead", {}, make("tr", {},
      make("th", { scope: "col" }, "Worker"), make("th", { scope: "col" }, "Pool"),
      make("th", { scope: "col" }, "State"), make("th", { scope: "col" }, "Now"),
      make("th", { scope: "col" }, "Taken"), make("th", { scope: "col" }, "Act"))), crew));
    const more = make("pre", { tabindex: "0" });
    const details = make("details", { hidden: "" }, make("summary", {}, "Details"), more);
    const button = (action, text, kind) => make("button", { type: "button", class: kind, "data-action": action,
      "aria-label": text + " " + name, onclick: () => act(name, action) }, text);
    const reload = button("reload", "Reload", "");
    const drain = button("drain", "Drain", "grave");
    const keys = make("button", { type: "button", "data-action": "keys", "aria-label": "Keys of " + name,
      onclick: () => browse(name) }, "Keys");
    const said = make("p", { class: "said", role: "status" });
    const root = make("article", { class: "card", "aria-labelledby": "name-" + name, "data-name": name },
      make("div", { class: "card-head" }, title, badge), sub, error,
      make("div", { class: "charts" }, work.figure, traffic.figure), list, limits, workers, listeners, details, said,
      make("div", { class: "buttons" }, keys, reload, drain));
    return { root, badge, sub, error, work, traffic, facts, limits, crew, workers, crewRows: new Map(), rows, listeners, more, details, reload, drain, keys, said };
  }

  function show(daemon) {
    let view = cards.get(daemon.name);
    if (!view) {
      view = card(daemon.name);
      cards.set(daemon.name, view);
    }
    const totals = daemon.totals;
    const rates = daemon.rates;
    const isThere = daemon.state !== "unreachable" && daemon.state !== "unknown";
    // An fd-broker may have both; of such a one its connections are told.
    const datagrams = daemon.listeners.length > 0 && daemon.listeners.every((listener) => !listener.connections);
    view.root.dataset.state = daemon.state;
    view.badge.dataset.state = daemon.state;
    setText(view.badge, daemon.state);
    setText(view.sub, daemon.program ? daemon.program + " " + daemon.version + " · " + daemon.admin : daemon.admin);
    view.error.hidden = !daemon.error;
    setText(view.error, daemon.error ? (daemon.seen ? "Not seen for " + span(Date.now() / 1000 - daemon.seen) + ": " : "") + daemon.error : "");
    const history = daemon.history;
    view.work.figure.querySelector("figcaption").firstChild.data = datagrams ? "Datagrams" : "Connections taken";
    view.work.show(rate(rates.accepted + rates.datagrams), history.work);
    view.traffic.show(bytes(rates.received_bytes) + ", " + bytes(rates.sent_bytes), history.received, history.sent);
    const present = daemon.connections.present;
    const limit = daemon.connections.limit;
    setText(view.facts.connections, datagrams ? "–" : count(present) + (limit === undefined ? "" : " of " + count(limit)));
    setText(view.facts.taken, count(totals.accepted + totals.datagrams));
    setText(view.facts.refused, count(totals.refused + totals.dropped));
    setText(view.facts.bad, count(totals.bad_input));
    setText(view.facts.uptime, isThere ? span(daemon.uptime_seconds) : "–");
    setText(view.facts.pid, isThere && daemon.pid ? String(daemon.pid) : "–");
    view.limits.replaceChildren(...daemon.limits.map((one) => make("li", { class: one.now ? "now" : "" },
      (one.listener ? one.listener + ": " : "") + one.reason.replaceAll("_", " ") + " × " + count(one.count))));
    view.limits.hidden = daemon.limits.length === 0;
    if (view.listeners.open || view.rows.childElementCount !== daemon.listeners.length) {
      view.rows.replaceChildren(...daemon.listeners.map((listener) => make("tr", {},
        make("td", { title: listener.service }, listener.name), make("td", { class: "end" }, listener.endpoint),
        make("td", {}, listener.connections ? count(listener.connections.present) : "–"),
        make("td", {}, count(listener.totals.accepted + listener.totals.datagrams)),
        make("td", {}, count(listener.totals.refused + listener.totals.dropped)))));
    }
    setText(view.listeners.querySelector("summary"), daemon.listeners.length + (daemon.listeners.length === 1 ? " listener" : " listeners"));
    view.details.hidden = Object.keys(daemon.details).length === 0;
    setText(view.more, JSON.stringify(daemon.details, null, 2));
    const can = (action) => mayAct() && daemon.actions.includes(action);
    view.reload.hidden = !can("reload");
    view.drain.hidden = !can("drain");
    view.keys.hidden = !daemon.keys;
    showWorkers(view, daemon, can);
  }

  // Workers of fd-broker. A row stays as long as its worker does, and so does the focus on its button.
  function showWorkers(view, daemon, can) {
    const pools = daemon.pools.filter((pool) => pool.workers.length > 0 || pool.waiting > 0);
    view.workers.hidden = pools.length === 0;
    const all = pools.flatMap((pool) => pool.workers.map((worker) => ({ pool, worker })));
    const seen = new Set();
    const wanted = all.map(({ pool, worker }) => {
      // A process may be there several times, once for each of its loops.
      let key;
      for (let nth = 0; seen.has(key = JSON.stringify([pool.name, worker.name, worker.pid, nth])); nth += 1);
      seen.add(key);
      let row = view.crewRows.get(key);
      if (!row) {
        const button = make("button", { type: "button", onclick: () => actOnWorkers(daemon.name, worker.name, button.dataset.action) });
        const cells = [...Array(6)].map(() => make("td", {}));
        cells[0].className = "wrap";
        cells[5].append(button);
        row = { root: make("tr", { "data-worker": worker.name }, ...cells), cells, button };
        view.crewRows.set(key, row);
      }
      const action = worker.state === "draining" ? "resume" : "drain";
      row.root.dataset.state = worker.state;
      setText(row.cells[0], worker.name);
      row.cells[0].title = worker.protocol + (worker.pid ? ", process " + worker.pid : "");
      setText(row.cells[1], pool.name);
      setText(row.cells[2], worker.state);
      setText(row.cells[3], count(worker.connections) + " of " + count(worker.capacity));
      setText(row.cells[4], count(worker.taken) + (worker.refused ? ", refused " + count(worker.refused) : ""));
      row.button.dataset.action = action;
      setText(row.button, action === "drain" ? "Drain" : "Resume");
      row.button.setAttribute("aria-label", row.button.textContent + " worker " + worker.name);
      row.button.hidden = !can("workers/" + action);
      return row.root;
    });
    for (const [key, row] of view.crewRows) if (!seen.has(key)) { row.root.remove(); view.crewRows.delete(key); }
    if (wanted.some((root, at) => view.crew.children[at] !== root)) view.crew.append(...wanted);
    const empty = pools.map((pool) => pool.name + (pool.waiting ? ": " + count(pool.waiting) + " waiting" : "")).join(", ");
    view.workers.title = empty && "Pools: " + empty;
  }

  // With many daemons, those that are asked for.
  const FILTER_FROM = 9;
  function filter() {
    const isOffered = daemons.size >= FILTER_FROM;
    const words = isOffered ? byId("filter-text").value.toLowerCase().split(/\s+/).filter(Boolean) : [];
    let shown = 0;
    for (const [name, view] of cards) {
      const daemon = daemons.get(name);
      const text = (name + " " + daemon.program + " " + daemon.state + (daemon.state === "ready" ? "" : " not-ready")).toLowerCase();
      view.root.hidden = !words.every((word) => text.includes(word));
      if (!view.root.hidden) shown += 1;
    }
    byId("filter").hidden = !isOffered;
    setText(byId("filter-said"), words.length === 0 ? "" : shown + " of " + daemons.size + " shown");
  }
  byId("filter-text").addEventListener("input", filter);
  byId("filter").addEventListener("submit", (event) => event.preventDefault());

  function showRest() {
    const all = [...daemons.values()];
    filter();
    const ready = all.filter((daemon) => daemon.state === "ready").length;
    const others = all.filter((daemon) => daemon.state !== "ready");
    const named = others.slice(0, 5).map((daemon) => daemon.name + " is " + daemon.state).join(", ");
    const list = named + (others.length > 5 ? ", and " + (others.length - 5) + " more" : "");
    setText(byId("summary"), all.length === 0 ? "No daemon is named." : ready + " of " + all.length + " ready" + (list ? ": " + list : ""));
    document.title = (others.length ? "(" + others.length + ") " : "") + "Portyard: the yard";
    const rows = all.flatMap((daemon) => daemon.certificates.map((one) => ({ daemon: daemon.name, ...one })));
    rows.sort((a, b) => a.not_after - b.not_after);
    byId("expiring").hidden = rows.length === 0;
    const soon = rows.filter((one) => one.days_left <= SOON_DAYS);
    byId("soon").hidden = soon.length === 0;
    const over = soon.filter((one) => one.days_left < 0).length;
    const several = (number, one, more) => number === 0 ? [] : [number === 1 ? "1 certificate " + one : number + " certificates " + more];
    setText(byId("soon").firstElementChild, [...several(over, "has ended", "have ended"),
      ...several(soon.length - over, "ends within " + SOON_DAYS + " days", "end within " + SOON_DAYS + " days")].join(", "));
    byId("expiring-rows").replaceChildren(...rows.map((one) => make("tr",
      { class: one.days_left < 0 ? "over" : one.days_left <= SOON_DAYS ? "soon" : "" },
      make("td", { title: clock(one.not_after).toISOString() },
        one.days_left < 0 ? "has ended" : "in " + one.days_left + (one.days_left === 1 ? " day" : " days")),
      make("td", {}, one.kind), make("td", { class: "wrap" }, one.name),
      make("td", { class: "wrap" }, one.daemon + " / " + one.listener), make("td", { class: "wrap" }, one.file))));
    const happened = [
      ...changes.map((change) => [change.at, change.name + ": " + change.from + " → " + change.to + (change.why ? " (" + change.why + ")" : "")]),
      ...taken.map((one) => [one.at, one.done.name + ": " + one.done.action + (one.done.worker ? " " + one.done.worker : "") +
        (one.by ? ", by " + one.by : "") + " (" + one.done.said + ")"]),
    ].sort((a, b) => b[0] - a[0]);
    byId("changes").hidden = happened.length === 0;
    byId("change-rows").replaceChildren(...happened.slice(0, HAPPENED).map(([at, text]) => make("li", {},
      make("time", { datetime: clock(at).toISOString() }, clock(at).toLocaleTimeString()), text)));
  }

  const push = (figures, figure) => { figures.push(figure); while (figures.length > POINTS) figures.shift(); };

  const told = {
    yard(yard) {
      steering = yard.steering;
      changes = yard.changes;
      taken = yard.taken;
      daemons.clear();
      const place = byId("daemons");
      for (const daemon of yard.daemons) { daemons.set(daemon.name, daemon); show(daemon); }
      for (const [name, view] of cards) {
        if (!daemons.has(name)) { view.root.remove(); cards.delete(name); }
      }
      // Cards stay where they are, and keep the focus, unless their order has changed.
      const wanted = yard.daemons.map((daemon) => cards.get(daemon.name).root);
      if (wanted.length === 0) {
        place.replaceChildren(make("p", { class: "empty" },
          "No daemon is named here. Write a table [[yard]] with a name and the admin endpoint of each into rest-api's configuration."));
      } else if (wanted.some((root, at) => place.children[at] !== root) || place.childElementCount !== wanted.length) {
        place.replaceChildren(...wanted);
      }
      offerKey();
      showRest();
    },
    daemon(daemon) {
      const old = daemons.get(daemon.name);
      if (!old) return;
      const history = old.history;
      push(history.work, daemon.rates.accepted + daemon.rates.datagrams);
      push(history.received, daemon.rates.received_bytes);
      push(history.sent, daemon.rates.sent_bytes);
      push(history.present, daemon.connections.present);
      daemon.history = history;
      daemons.set(daemon.name, daemon);
      show(daemon);
      showRest();
    },
    change(change) {
      changes.unshift(change);
      changes.length = Math.min(changes.length, HAPPENED);
      showRest();
    },
    action(one) {
      taken.unshift(one);
      taken.length = Math.min(taken.length, HAPPENED);
      showRest();
    },
  };

  // The key, in memory only.
  function offerKey(force) {
    const isBasic = steering.key === "basic";
    byId("key-form").hidden = !(force || (steering.enabled && (isBasic || steering.key === "bearer")));
    byId("key-name").hidden = byId("key-name-label").hidden = !isBasic;
  }
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const key = byId("key").value;
    // A key may be in any script, a field may not. As base64 it is understood as well.
    const coded = (text) => btoa(String.fromCharCode(...new TextEncoder().encode(text)));
    credentials = !key ? null : steering.key === "basic"
      ? "Basic " + coded(byId("key-name").value + ":" + key)
      : "Bearer " + (/^[\x20-\x7e]*$/.test(key) ? key : coded(key));
    byId("key").value = "";
    byId("key-forget").hidden = !credentials;
    setText(byId("key-help"), credentials ? "The key is used until you forget it or close the tab." : "No key is used.");
    if (link.refused) listen();
  });
  byId("key-forget").addEventListener("click", () => {
    credentials = null;
    byId("key-forget").hidden = true;
    setText(byId("key-help"), "The key is forgotten.");
  });

  // Signatures are for programs. Who has a certificate needs no key, and whether it is a good one, the server knows.
  const mayAct = () => steering.enabled && (steering.key !== "hmac" || steering.certificates);
  const needsKey = () => steering.key && !steering.certificates && !credentials;

  function ask(path, options) {
    const headers = { Accept: "application/json", ...(options && options.headers) };
    if (credentials) headers.Authorization = credentials;
    return fetch(path, { cache: "no-store", redirect: "error", ...options, headers });
  }

  // What went wrong, in the server's words.
  async function complaint(response) {
    if (response.status === 401 && credentials) return "this key is not accepted";
    try { return (await response.json()).detail || response.statusText; } catch { return response.status + " " + response.statusText; }
  }

  function confirmed(title, text, yes) {
    const dialog = byId("dialog");
    setText(byId("dialog-title"), title);
    setText(byId("dialog-text"), text);
    setText(byId("dialog-yes"), yes);
    dialog.returnValue = "no";
    dialog.showModal();
    return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
  }

  const act = (name, action) => order(name, action, "Drain " + name,
    "It takes nothing new, finishes what runs, and leaves. Whatever has started it decides whether it comes back.");
  const actOnWorkers = (name, worker, action) => order(name, "workers/" + encodeURIComponent(worker) + "/" + action,
    "Drain " + worker, "Workers of this name finish what they have and are given nothing new until they are resumed.");

  // Has it done by the daemon; what drains is asked about first.
  async function order(name, path, title, warning) {
    const view = cards.get(name);
    const say = (text, bad) => { setText(view.said, text); view.said.className = bad ? "said bad" : "said"; };
    if (needsKey()) {
      say("Refused: enter a key at the top of the page first.", true);
      byId("key").focus();
      return;
    }
    if (path.endsWith("drain") && !await confirmed(title + "?", warning, title)) return;
    say("…", false);
    try {
      const response = await ask("/api/v1/yard/" + encodeURIComponent(name) + "/" + path, { method: "POST" });
      if (response.ok) say((await response.json()).said, false);
      else say("Refused: " + await complaint(response), true);
    } catch (error) {
      say("Not done: " + error.message, true);
    }
  }

  // The keys of a kv-rpc.
  // What was asked for last is shown: an answer to an earlier question, and one after the window was closed,
  // comes too late.
  const browser = { name: "", cursor: null, asked: { page: 0, value: 0 }, isAsking: false };
  const question = (what) => {
    const mine = ++browser.asked[what];
    return () => mine === browser.asked[what] && byId("browser").open;
  };
  async function browse(name) {
    browser.name = name;
    setText(byId("browser-title"), "Keys of " + name);
    byId("browser-new").hidden = !mayAct();
    byId("editor").hidden = true;
    byId("prefix").value = "";
    byId("browser").showModal();
    await page(true);
  }
  async function page(anew) {
    const isWanted = question("page");
    if (anew) question("value");
    browser.isAsking = true;
    const parameters = new URLSearchParams({ prefix: byId("prefix").value });
    if (!anew && browser.cursor) parameters.set("cursor", browser.cursor);
    if (anew) { byId("browser-rows").replaceChildren(); byId("browser-value").hidden = true; byId("editor").hidden = true; }
    try {
      const response = await ask("/api/v1/yard/" + encodeURIComponent(browser.name) + "/keys?" + parameters);
      const found = response.ok ? await response.json() : null;
      const why = found ? "" : await complaint(response);
      if (!isWanted()) return;
      if (!found) { setText(byId("browser-said"), why); return; }
      browser.cursor = found.cursor || null;
      byId("browser-more").hidden = !browser.cursor;
      byId("browser-rows").append(...found.keys.map((one) => make("tr", {},
        make("td", {}, make("button", { type: "button", onclick: () => value(one.name) }, one.name || "(empty)")),
        make("td", {}, one.kind), make("td", { class: "wrap" }, one.begins + (one.cut ? "…" : "")))));
      setText(byId("browser-said"), byId("browser-rows").childElementCount === 0 ? "There is no such key." : "");
    } catch (error) {
      if (isWanted()) setText(byId("browser-said"), error.message);
    } finally {
      if (isWanted()) browser.isAsking = false;
    }
  }
  const place = (key) => "/api/v1/yard/" + encodeURIComponent(browser.name) + "/value?" + new URLSearchParams({ key });
  async function value(key) {
    const isWanted = question("value");
    try {
      const response = await ask(place(key));
      const entry = response.ok ? await response.text() : null;
      const why = entry ? "" : await complaint(response);
      if (!isWanted()) return;
      setText(byId("browser-value"), key + "\n" + (entry ? layOut(entry) : why));
      byId("browser-value").hidden = false;
      if (entry && mayAct()) edit(key, layOut(memberText(entry, "value")), response.headers.get("etag"));
      else byId("editor").hidden = true;
      byId("browser-value").focus();
    } catch (error) {
      if (isWanted()) setText(byId("browser-said"), error.message);
    }
  }
  // JSON with a line for each value. Numbers stay as they were sent: a browser would round big ones, and
  // take the point out of 1.0.
  function layOut(text) {
    let out = "";
    let depth = 0;
    const tokens = text.match(/"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s"{}[\],:]+/g) || [];
    tokens.forEach((token, at) => {
      const opens = token === "{" || token === "[";
      const closes = token === "}" || token === "]";
      const isEmpty = closes && (tokens[at - 1] === "{" || tokens[at - 1] === "[");
      if (closes) depth -= 1;
      if (closes && !isEmpty) out += "\n" + "  ".repeat(depth);
      out += token;
      if (opens) depth += 1;
      if ((opens && tokens[at + 1] !== "}" && tokens[at + 1] !== "]") || token === ",") out += "\n" + "  ".repeat(depth);
      if (token === ":") out += " ";
    });
    return out;
  }
  // What a member of an object is, as it was sent.
  function memberText(text, name) {
    let depth = 0;
    let start = -1;
    let key = "";
    for (const { 0: token, index } of text.matchAll(/"(?:[^"\\]|\\.)*"|[{}[\],:]/g)) {
      if (token === "{" || token === "[") depth += 1;
      else if (token === "}" || token === "]") depth -= 1;
      if (start >= 0 && (depth === 0 || (depth === 1 && token === ","))) return text.slice(start, index);
      if (depth !== 1 || start >= 0) continue;
      if (token === ":" && key === name) start = index + 1;
      else if (token.startsWith('"')) key = JSON.parse(token);
    }
    return "null";
  }

  // What somebody else has changed meanwhile stays as it is.
  function edit(key, text, tag) {
    browser.tag = tag;
    byId("editor").hidden = false;
    byId("editor-key").value = key;
    byId("editor-key").readOnly = tag !== null;
    byId("editor-value").value = text;
    byId("editor-delete").hidden = tag === null;
    sayOfEdit("", false);
  }
  function sayOfEdit(text, bad) {
    setText(byId("editor-said"), text);
    byId("editor-said").className = bad ? "said bad" : "said";
  }
  async function change(method, done) {
    const key = byId("editor-key").value;
    const text = byId("editor-value").value;
    if (method === "PUT") {
      try { JSON.parse(text); } catch (error) { sayOfEdit("This is no JSON: " + error.message, true); return; }
    }
    if (needsKey()) {
      byId("browser").close();
      byId("key").focus();
      setText(byId("key-help"), "Enter a key here first.");
      return;
    }
    const headers = browser.tag ? { "If-Match": browser.tag } : { "If-None-Match": "*" };
    if (method === "PUT") headers["Content-Type"] = "application/json";
    try {
      const response = await ask(place(key), { method, headers, body: method === "PUT" ? text : undefined });
      if (!response.ok) {
        sayOfEdit("Refused: " + (response.status === 412 ? (browser.tag
          ? "it was changed meanwhile; select it again" : "this key is there already") : await complaint(response)), true);
        return;
      }
      await page(true);
      if (method === "PUT") await value(key);
      setText(byId("browser-said"), done + " " + key);
    } catch (error) {
      sayOfEdit("Not done: " + error.message, true);
    }
  }
  byId("editor").addEventListener("submit", (event) => { event.preventDefault(); change("PUT", "Saved"); });
  byId("editor-delete").addEventListener("click", async () => {
    const key = byId("editor-key").value;
    if (await confirmed("Delete " + key + "?", "Its value is gone then.", "Delete " + key)) await change("DELETE", "Deleted");
  });
  byId("browser-new").addEventListener("click", () => {
    byId("browser-value").hidden = true;
    edit("", "", null);
    byId("editor-key").focus();
  });
  byId("browser-form").addEventListener("submit", (event) => { event.preventDefault(); page(true); });
  byId("browser-more").addEventListener("click", () => { if (!browser.isAsking) page(false); });
  byId("browser-close").addEventListener("click", () => byId("browser").close());

  // The stream. Not an EventSource: that cannot show a key.
  const SILENCE = 40000;
  const link = { refused: false, wait: 500 };
  function state(name, text) {
    byId("link").dataset.state = name;
    // What is shown is what was known last.
    document.body.dataset.link = name;
    setText(byId("link-text"), text);
  }
  async function listen() {
    link.refused = false;
    // A connection whose other end is gone without a word: even a quiet stream says something each 15 s.
    const broken = new AbortController();
    let watch = setTimeout(() => broken.abort(), SILENCE);
    let why = "no connection to rest-api";
    const heard = () => { clearTimeout(watch); watch = setTimeout(() => broken.abort(), SILENCE); };
    try {
      const response = await ask("/api/v1/events", { headers: { Accept: "text/event-stream" }, signal: broken.signal });
      if (!response.ok) {
        why = await complaint(response);
        state("lost", why);
        if (response.status === 401 || response.status === 403) {
          const scheme = response.headers.get("www-authenticate") || "";
          steering = { ...steering, key: scheme.startsWith("Basic") ? "basic" : "bearer" };
          link.refused = true;
          offerKey(true);
          setText(byId("summary"), "A key is needed to look.");
          if (credentials) setText(byId("key-help"), "This key is not accepted.");
          return;
        }
        throw new Error(response.statusText);
      }
      state("live", "live");
      link.wait = 500;
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        heard();
        text += value;
        for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) dispatch(text.slice(0, end));
      }
      state("waiting", "reconnecting");
    } catch {
      state("lost", why + "; trying again");
    } finally {
      clearTimeout(watch);
      // A browser has few connections for one server.
      broken.abort();
    }
    setTimeout(listen, link.wait);
    link.wait = Math.min(link.wait * 2, 8000);
  }
  function dispatch(block) {
    let name = "";
    let data = "";
    for (const line of block.split("\n")) {
      if (line.startsWith("event: ")) name = line.slice(7);
      else if (line.startsWith("data: ")) data += line.slice(6);
    }
    if (data && Object.hasOwn(told, name)) told[name](JSON.parse(data));
  }
  listen();
})();
