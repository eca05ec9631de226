// The page of graphrec serve: no library, no build step, no other host.

const $ = (id) => document.getElementById(id);
const MOST_CALLS = 50; // shown in the table at the foot

const state = {
  health: null,
  mode: "taste",
  liked: [], // of a stranger: {item_id, title}
  disliked: [],
  user: null,
  round: 0, // an answer to an earlier question is not shown
};

// Calls

function key() {
  try {
    return sessionStorage.getItem("graphrec-key");
  } catch {
    return null; // storage is off
  }
}

async function call(method, path, content) {
  const headers = content === undefined ? {} : { "Content-Type": "application/json" };
  if (key()) headers.Authorization = `Bearer ${key()}`;
  const body = content === undefined ? undefined : JSON.stringify(content);
  const started = performance.now();
  let response;
  try {
    response = await fetch(path, { method, headers, body, cache: "no-store" });
  } catch {
    note(method, path, "none", performance.now() - started, "");
    throw new Error("the service does not answer");
  }
  const answer = await response.json();
  const ms = performance.now() - started;
  const within = /dur=([\d.]+)/.exec(response.headers.get("server-timing") ?? "");
  note(method, path, response.status, ms, within ? Number(within[1]).toFixed(1) : "");
  if (response.status === 401) $("key-form").hidden = false;
  if (!response.ok) throw new Error(answer.detail ?? `status ${response.status}`);
  return { ...answer, ms };
}

const ask = (path, content) => call("POST", path, content);
const get = (path, query) => call("GET", `${path}?${new URLSearchParams(query)}`);

function note(method, path, status, ms, within) {
  const row = document.createElement("tr");
  for (const text of [`${method} /${path.split("?")[0]}`, status, ms.toFixed(1), within]) {
    row.append(make("td", text));
  }
  $("calls").prepend(row);
  while ($("calls").rows.length > MOST_CALLS) $("calls").lastElementChild.remove();
}

// Small helpers

function make(tag, text = "", className = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  if (className) element.className = className;
  return element;
}

const percent = (share) => (share > 0 && share < 0.001 ? "<0.1 %" : `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`);
const count = (number, one, more = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : more}`;

function say(text, bad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", bad);
}

// A text field with suggestions, by the pattern "combobox" of the ARIA Authoring Practices

function combobox(input, list, search, choose) {
  let found = [];
  let active = -1;
  let round = 0;
  let timer = 0;
  for (const [name, value] of Object.entries({
    role: "combobox",
    "aria-autocomplete": "list",
    "aria-expanded": "false",
    "aria-controls": list.id,
  })) {
    input.setAttribute(name, value);
  }
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", "Suggestions");

  function close() {
    list.hidden = true;
    active = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  }
  function mark(index) {
    active = index;
    [...list.children].forEach((option, at) => option.setAttribute("aria-selected", String(at === index)));
    if (index < 0) return;
    input.setAttribute("aria-activedescendant", list.children[index].id);
    list.children[index].scrollIntoView({ block: "nearest" });
  }
  function take(index) {
    const chosen = found[index];
    input.value = "";
    close();
    choose(chosen);
  }
  async function suggest() {
    const now = ++round;
    const text = input.value.trim();
    try {
      const options = await search(text);
      if (now !== round) return;
      found = options;
    } catch (error) {
      say(error.message, true);
      return;
    }
    list.replaceChildren(
      ...found.map((option, at) => {
        const element = make("li", option.title ?? option);
        element.id = `${list.id}-${at}`;
        element.setAttribute("role", "option");
        element.addEventListener("mousedown", (event) => {
          event.preventDefault(); // the field keeps the focus
          take(at);
        });
        return element;
      }),
    );
    list.hidden = !found.length;
    input.setAttribute("aria-expanded", String(!list.hidden));
    mark(found.length ? 0 : -1);
  }
  input.addEventListener("input", () => {
    clearTimeout(timer);
    if (!input.value.trim()) {
      round++;
      close();
      return;
    }
    timer = setTimeout(suggest, 120);
  });
  input.addEventListener("keydown", (event) => {
    if (list.hidden) {
      if (event.key === "ArrowDown") suggest();
      return;
    }
    if (event.key === "ArrowDown") mark((active + 1) % found.length);
    else if (event.key === "ArrowUp") mark((active - 1 + found.length) % found.length);
    else if (event.key === "Enter" && active >= 0) take(active);
    else if (event.key === "Escape") close();
    else return;
    event.preventDefault();
  });
  input.addEventListener("blur", close);
}

// Who

const asking = () =>
  state.mode === "user" ? { user_id: state.user } : { history: state.liked.map((item) => item.item_id) };
const ready = () => (state.mode === "user" ? state.user !== null : state.liked.length > 0);
const canWrite = () => state.mode === "taste" || !state.health.read_only;
const whoText = () => (state.mode === "user" ? `user ${state.user}` : count(state.liked.length, "title"));

function chips(list, items, verb, remove) {
  list.replaceChildren(
    ...items.map((item) => {
      const chip = make("li", item.title);
      const button = make("button", "×");
      button.type = "button";
      button.setAttribute("aria-label", `${verb} ${item.title}`);
      button.addEventListener("click", () => remove(item));
      chip.append(button);
      return chip;
    }),
  );
}

const without = (items, item) => items.filter((other) => other.item_id !== item.item_id);

function showTaste() {
  chips($("liked"), state.liked, "Remove", (item) => changeTaste(item, "undo"));
  chips($("not-liked"), state.disliked, "Allow again", (item) => changeTaste(item, "undo"));
  $("not-liked-part").hidden = !state.disliked.length;
  $("not-liked-count").textContent = state.disliked.length;
  $("clear").hidden = !state.liked.length && !state.disliked.length;
}

function changeTaste(item, kind) {
  state.liked = without(state.liked, item);
  state.disliked = without(state.disliked, item);
  if (kind === "like") state.liked.push(item);
  if (kind === "dislike") state.disliked.push(item);
  showTaste();
  return refresh();
}

async function changeUser(item, kind) {
  await ask("events", { events: [{ user_id: state.user, item_id: item.item_id, kind }] });
  return refresh();
}

async function showPast() {
  const past = await ask("history", { user_id: state.user, limit: 12 });
  const liked = new Set(past.liked);
  $("past-part").hidden = false;
  $("past-count").textContent =
    past.num_past > past.items.length ? `the last ${past.items.length} of ${past.num_past}` : `${past.num_past}`;
  $("past").replaceChildren(
    ...past.items.toReversed().map((item) => {
      const row = make("li", item.title);
      if (liked.has(item.item_id)) row.append(" ", make("span", "liked here", "mark"));
      return row;
    }),
  );
  chips($("disliked"), past.disliked, "Allow again", (item) => act(() => changeUser(item, "undo")));
  $("disliked-part").hidden = !past.disliked.length;
  $("disliked-count").textContent = past.disliked.length;
}

// Lists

function shownModels() {
  const models = state.health.models;
  return models.length > 1 && $("compare").checked ? models : models.slice(0, 1);
}

async function refresh() {
  const round = ++state.round;
  remember();
  if (!ready()) {
    showEmpty();
    return;
  }
  const k = Number($("k").value);
  const exclude = state.mode === "taste" ? state.disliked.map((item) => item.item_id) : [];
  document.querySelectorAll(".column").forEach((column) => column.classList.add("stale"));
  try {
    const models = shownModels();
    const answers = await Promise.all([
      ...models.map((model) =>
        state.mode === "taste" && !model.takes_strangers
          ? { refused: `${model.kind} knows only its own users.` }
          : ask("recommend", { ...asking(), k, exclude, model: model.name }),
      ),
      state.mode === "user" ? showPast() : undefined,
    ]);
    const health = await call("GET", "health");
    if (round !== state.round) return;
    state.health = health;
    show(models, answers.slice(0, models.length));
    say(`${count(answers[0].items?.length ?? 0, "recommendation")} for ${whoText()}, in ${answers[0].ms?.toFixed(0) ?? 0} ms`);
    await fillReasons(round);
  } catch (error) {
    if (round === state.round) say(error.message, true);
  }
}

function showEmpty() {
  const hint =
    state.mode === "taste" ? "Type a title you like, and see what the model makes of it." : "Choose a user to see their list.";
  $("columns").replaceChildren(make("p", hint, "column empty"));
  $("past-part").hidden = true;
  say("");
}

function show(models, answers) {
  const before = new Set([...document.querySelectorAll(".entry")].map((entry) => entry.dataset.place));
  const sets = answers.map((answer) => new Set((answer.items ?? []).map((item) => item.item_id)));
  const columns = models.map((model, at) => {
    const column = $("column").content.firstElementChild.cloneNode(true);
    const answer = answers[at];
    const now = state.health.models.find((other) => other.name === model.name) ?? model;
    column.dataset.model = model.name;
    column.querySelector("h3").textContent = models.length > 1 ? `${model.kind} (${model.name})` : model.kind;
    if (answer.refused) {
      column.querySelector(".facts").textContent = answer.refused;
      return column;
    }
    const other = sets[1 - at];
    const shared = other ? [...sets[at]].filter((id) => other.has(id)).length : 0;
    const facts = [
      `${answer.ms.toFixed(0)} ms`,
      `from ${count(answer.num_past, "past item")}`,
      `novelty ${answer.novelty.toFixed(1)} bits`,
      `coverage ${percent(now.coverage)} of ${count(now.num_items, "item")} in ${count(now.lists, "list")}`,
      ...(other ? [`${shared} on both lists`] : []),
    ];
    column.querySelector(".facts").textContent = facts.join(" · ");
    column.querySelector(".list").append(
      ...answer.items.map((item) => makeEntry(item, model, Boolean(other?.has(item.item_id)), before)),
    );
    if (!answer.items.length) column.append(make("p", "Nothing is left to recommend.", "empty"));
    return column;
  });
  const focus = document.activeElement?.closest?.(".entry");
  const rank = focus ? [...focus.parentElement.children].indexOf(focus) : -1;
  const at = focus ? [...document.querySelectorAll(".column")].indexOf(focus.closest(".column")) : -1;
  const button = focus ? document.activeElement.className : "";
  $("columns").replaceChildren(...columns);
  // Who works with the keyboard goes on where they were.
  if (rank >= 0) columns[at]?.querySelectorAll(".entry")[rank]?.querySelector(`.${button}`)?.focus();
}

function makeEntry(item, model, both, before) {
  const entry = $("entry").content.firstElementChild.cloneNode(true);
  entry.dataset.item = item.item_id;
  entry.dataset.place = `${model.name} ${item.item_id}`;
  if (before.size && !before.has(entry.dataset.place)) entry.classList.add("new");
  const title = entry.querySelector(".title");
  title.textContent = item.title;
  if (both) title.append(make("span", "on both lists", "both"));
  const buttons = {
    why: [() => explain(item, model), `Why ${item.title}?`],
    like: [() => react(item, "like"), `Like ${item.title}`],
    dislike: [() => react(item, "dislike"), `Not for me: ${item.title}`],
  };
  for (const [name, [action, label]] of Object.entries(buttons)) {
    const button = entry.querySelector(`.${name}`);
    button.setAttribute("aria-label", label);
    button.disabled = name !== "why" && !canWrite();
    if (button.disabled) button.title = "This service is read-only";
    button.addEventListener("click", () => act(action));
  }
  return entry;
}

const react = (item, kind) =>
  state.mode === "taste" ? changeTaste({ item_id: item.item_id, title: item.title }, kind) : changeUser(item, kind);

async function act(action) {
  try {
    await action();
  } catch (error) {
    say(error.message, true);
  }
}

async function fillReasons(round) {
  // One after the other, so that lists come first; from the top of all lists down.
  const rank = (entry) => [...entry.parentElement.children].indexOf(entry);
  const entries = [...document.querySelectorAll(".entry")].sort((one, other) => rank(one) - rank(other));
  for (const entry of entries) {
    if (round !== state.round) return;
    const model = entry.closest(".column").dataset.model;
    const why = await ask("explain", { ...asking(), item: entry.dataset.item, model, k: 3 });
    entry.querySelector(".reason").textContent = shortReason(why);
  }
}

function shortReason(why) {
  const first = why.past.find((past) => past.share > 0);
  const parts = [];
  if (first) parts.push(`because of ${first.title}`);
  if (why.paths.length) parts.push(why.paths[0].sentence);
  return parts.join("; ") || why.sentences[0];
}

// Why

async function explain(item, model) {
  const why = await ask("explain", { ...asking(), item: item.item_id, model: model.name, k: 6 });
  $("why-title").textContent = `Why ${why.title}?`;
  $("why-who").textContent = `${model.kind}, for ${whoText()}; explained in ${why.ms.toFixed(0)} ms`;
  const content = $("why-content");
  content.replaceChildren();
  if (!$("why").open) $("why").showModal();
  const past = why.past.filter((one) => one.share > 0);
  if (past.length) {
    const total = past.reduce((sum, one) => sum + one.share, 0);
    content.append(make("h3", state.mode === "user" ? "What they took before" : "What you like"));
    const shown = `Share of all that speaks for it; those shown are ${percent(total)}.`;
    content.append(make("p", `${shown} Measured by ${why.how}.`, "quiet"));
    content.append(bars(past));
  }
  if (why.paths.length) {
    content.append(make("h3", "What the knowledge graph says"));
    const means = why.paths[0].effect == null ? "the more the model attends along it" : "the more the score falls without it";
    const note = `The wider a line, ${means}. The most telling paths come first.`;
    content.append(make("p", note, "quiet"));
    const box = make("div", "", "graph");
    content.append(box);
    box.append(drawPaths(why, box.clientWidth));
    const list = make("ul", "", "sentences");
    list.append(...why.paths.map((path) => make("li", path.sentence)));
    content.append(list);
  }
  if (!past.length && !why.paths.length) content.append(make("p", `${why.sentences[0]}.`));
  $("why-title").focus();
}

function bars(past) {
  const list = make("ul", "", "bars");
  const longest = Math.max(...past.map((one) => one.share));
  for (const one of past) {
    const row = document.createElement("li");
    const cell = make("div", "", "bar-cell");
    const bar = make("div", "", "bar");
    bar.style.width = `${(100 * one.share) / longest}%`;
    cell.append(bar);
    row.append(make("span", one.title), cell, make("span", percent(one.share), "share"));
    list.append(row);
  }
  return list;
}

function svg(tag, attributes = {}, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text) element.textContent = text;
  return element;
}

function wrap(text, width, most) {
  const lines = [""];
  for (const word of text.split(/\s+/)) {
    const line = lines.at(-1);
    if (line && line.length + 1 + word.length > width) lines.push(word);
    else lines[lines.length - 1] = line ? `${line} ${word}` : word;
  }
  const shown = lines.slice(0, most).map((line) => (line.length > width ? `${line.slice(0, width - 1)}…` : line));
  if (lines.length > most) shown[most - 1] = `${shown[most - 1].slice(0, width - 1)}…`;
  return shown;
}

// Three columns: past items, what they share with the item, the item.
function drawPaths(why, width) {
  const narrow = width < 560;
  const box = Math.floor(width * (narrow ? 0.3 : 0.25));
  const letters = Math.floor((box - 14) / 7.1);
  const line = 17;
  const left = 1;
  const middle = Math.floor((width - box) / 2);
  const right = width - box - 1;
  const strength = (path) => path.effect ?? path.attention;
  const strongest = Math.max(...why.paths.map(strength), 1e-12);

  const rows = why.paths.map((path) => {
    const past = path.past_title + (path.more_past ? ` and ${path.more_past} more` : "");
    const known = path.known_from.length ? `, also of ${path.known_from.join(", ")}` : "";
    const entity = path.entity || `an unnamed ${path.relation || path.past_relation || "entity"}${known}`;
    return { path, past: wrap(past, letters, 3), entity: wrap(entity, letters, 3) };
  });
  const heights = rows.map((row) => Math.max(row.past.length, row.entity.length) * line + 34);
  const item = wrap(why.title, letters - 1, 4);
  const height = Math.max(heights.reduce((sum, one) => sum + one, 0), item.length * line + 30);
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  picture.append(svg("title", {}, `Paths from past items to ${why.title}; the sentences below say the same.`));
  const lines = svg("g");
  const nodes = svg("g");
  const words = svg("g");
  picture.append(lines, nodes, words);

  const node = (kind, x, centre, texts, whole) => {
    const tall = texts.length * line + 14;
    const group = svg("g", { class: `node ${kind}` });
    group.append(svg("title", {}, whole));
    group.append(svg("rect", { x, y: centre - tall / 2, width: box, height: tall, rx: 8 }));
    texts.forEach((text, at) => {
      const y = centre - tall / 2 + 7 + line * (at + 0.75);
      group.append(svg("text", { x: x + box / 2, y, "text-anchor": "middle" }, text));
    });
    nodes.append(group);
  };
  const curve = (from, y1, to, y2, weight, kind) => {
    const bend = (to - from) / 2;
    const d = `M${from} ${y1} C${from + bend} ${y1} ${to - bend} ${y2} ${to} ${y2}`;
    lines.append(svg("path", { d, "stroke-width": (1.5 + 6.5 * (weight / strongest)).toFixed(2), class: kind }));
  };

  const half = height / 2;
  const spread = Math.min(item.length * line, 40);
  let top = 0;
  rows.forEach(({ path, past, entity }, at) => {
    const centre = top + heights[at] / 2;
    top += heights[at];
    node("past", left, centre, past, path.past_title);
    node("entity", middle, centre, entity, path.entity || path.known_from.join(", "));
    curve(left + box, centre, middle, centre, strength(path), "from");
    const end = half - spread / 2 + (spread * (at + 0.5)) / rows.length;
    curve(middle + box, centre, right, end, strength(path), "to");
    if (narrow) return; // no room: the sentences below say it
    const gap = Math.floor((middle - left - box) / 6.6);
    const label = (text, x, anchor) =>
      text && words.append(svg("text", { x, y: centre - 9, "text-anchor": anchor, class: "relation" }, wrap(text, gap, 1)[0]));
    label(path.past_relation, (left + box + middle) / 2, "middle");
    label(path.relation === path.past_relation ? "" : path.relation, middle + box + 6, "start");
  });
  node("item", right, half, item, why.title);
  return picture;
}

// The address keeps who it is for; what follows # never leaves the browser

function remember() {
  const words = new URLSearchParams();
  if (state.mode === "user") {
    if (state.user !== null) words.set("user", state.user);
  } else {
    for (const item of state.liked) words.append("like", item.item_id);
  }
  const text = words.toString();
  window.history.replaceState(null, "", text ? `#${text}` : location.pathname);
}

async function recall() {
  const words = new URLSearchParams(location.hash.slice(1));
  if (words.has("user")) {
    setMode("user");
    await chooseUser(words.get("user"));
    return;
  }
  const liked = [];
  for (const id of words.getAll("like")) {
    const { items } = await get("items", { query: id, limit: 1 });
    if (items[0]?.item_id === id) liked.push(items[0]);
  }
  state.liked = liked; // all at once: without a key none is found, and the address keeps them
  showTaste();
  await refresh();
}

function setMode(mode) {
  state.mode = mode;
  document.querySelector(`input[name="mode"][value="${mode}"]`).checked = true;
  $("taste-panel").hidden = mode !== "taste";
  $("user-panel").hidden = mode !== "user";
}

function chooseUser(user) {
  state.user = user;
  $("user-input").value = user;
  return refresh();
}

async function start() {
  state.health = await call("GET", "health");
  const models = state.health.models;
  const [first] = models;
  $("key-form").hidden = !state.health.keys || Boolean(key());
  $("compare-part").hidden = models.length < 2;
  const kinds = models.map((model) => model.kind).join(" and ");
  $("about").textContent =
    `${kinds} on ${first.data}: ${count(first.num_users, "user")}, ${count(first.num_items, "item")}` +
    (state.health.read_only ? "; read-only" : "");
  $("user-hint").textContent = state.health.read_only
    ? "This service is read-only: likes of a user are not taken."
    : "Likes and dislikes are kept, and heeded at once.";
  if (!first.takes_strangers) setMode("user");
  await recall();
}

document.querySelectorAll('input[name="mode"]').forEach((radio) =>
  radio.addEventListener("change", () => {
    setMode(radio.value);
    refresh();
  }),
);
combobox(
  $("title-input"),
  $("title-options"),
  async (query) => (query ? (await get("items", { query, limit: 8 })).items : []),
  (item) => act(() => changeTaste(item, "like")),
);
combobox(
  $("user-input"),
  $("user-options"),
  async (query) => (await get("users", { query, limit: 8 })).users,
  (user) => act(() => chooseUser(user)),
);
$("k").addEventListener("change", refresh);
$("compare").addEventListener("change", refresh);
$("clear").addEventListener("click", () => {
  state.liked = [];
  state.disliked = [];
  showTaste();
  refresh();
  $("title-input").focus();
});
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  try {
    sessionStorage.setItem("graphrec-key", $("key").value.trim());
  } catch {
    say("this browser keeps no key: its storage is off", true);
    return;
  }
  $("key").value = "";
  $("key-form").hidden = true;
  act(ready() ? refresh : recall);
});
$("theme").addEventListener("change", () => {
  document.documentElement.dataset.theme = $("theme").value;
});

start().catch((error) => say(error.message, true));
