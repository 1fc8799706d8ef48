// The cards of one page of what was chosen; of the rest nothing is made.
const PAGE = 24;

const showFilters = (changed) => {
  const choice = (name, label, values) => {
    const select = el("select", { name, "aria-label": label }, values.map(([value, text]) => words(text, { value }, "option")));
    select.addEventListener("change", () => changed({ [name]: select.value }));
    return select;
  };
  const search = el("input", { type: "search", name: "q", placeholder: "Search prompts, ids, keys", "aria-label": "Search prompts, ids and keys" });
  search.addEventListener("input", () => changed({ q: search.value }));
  const tags = countedValues(tagsOf, 500), sizes = countedValues((clip) => [sizeOf(clip)].filter(Boolean), 200);
  const statuses = countedValues((clip) => [clip.status], 2);
  const counted = (values) => values.map(([value, number]) => [value, `${value} (${number.toLocaleString("en")})`]);
  const seeds = el("input", { type: "checkbox", name: "seeds", id: "seeds" });
  seeds.addEventListener("change", () => changed({ seeds: seeds.checked ? "1" : "" }));
  const hasFamilies = [...families.values()].some((family) => family.length > 1);
  put(byId("filters"),
    search,
    statuses.length > 1 ? choice("status", "Status", [["", "committed and failed"], ...counted(statuses)]) : "",
    tags.length ? choice("tag", "Tag", [["", "all tags"], ...counted(tags)]) : "",
    sizes.length > 1 ? choice("size", "Size", [["", "all sizes"], ...counted(sizes)]) : "",
    choice("sort", "Order", Object.entries(SORTS).map(([name, [text]]) => [name, text])),
    hasFamilies ? el("label", { for: "seeds" }, seeds, " with other seeds") : "",
  );
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
};

const fillFilters = () => {
  for (const field of byId("filters").elements) {
    if (field.type === "checkbox") field.checked = Boolean(state[field.name]);
    else if (field.value !== state[field.name]) field.value = state[field.name];
  }
};

const card = (clip, shown, changed) => {
  const open = el("button", { type: "button", class: "poster", "aria-label": `${clip.status === "failed" ? "Failure of" : "Play"} ${labelOf(clip)}` });
  open.addEventListener("click", () => openClip(clip, shown));
  if (clip.status === "failed") {
    open.append(el("span", { class: "failed" }, el("strong", {}, `failed: ${clip.class}`), words(clip.message)));
  } else {
    const still = kindOf(clip) === "image" && clip.num_frames === 1;
    open.append(el("img", { src: posterOf(clip), alt: "", loading: "lazy", decoding: "async" }), still ? "" : el("span", { class: "duration" }, seconds(durationOf(clip))));
  }
  const siblings = siblingsOf(clip);
  const compare = siblings.length > 1 ? el("button", { type: "button", class: "small" }, `Compare ${siblings.length} seeds`) : "";
  if (compare) compare.addEventListener("click", () => openComparison(clip));
  const tags = tagsOf(clip).slice(0, 3).map((tag) => {
    const chip = words(tag, { type: "button", class: "chip", title: `Only ${tag}` }, "button");
    chip.addEventListener("click", () => changed({ tag }));
    return chip;
  });
  return el("article", { class: "card", "data-key": clip.key },
    open,
    el("div", { class: "about" },
      words(clip.prompt || "no prompt", { class: "text", title: clip.prompt }, "p"),
      el("p", { class: "muted" }, words(labelOf(clip)), sizeOf(clip) ? ` · ${sizeOf(clip)}` : "", clip.seed ? ` · seed ${clip.seed}` : "", clip.attempts > 1 ? ` · ${clip.attempts} attempts` : ""),
      el("div", { class: "chips" }, tags, compare)));
};

const showPager = (numPages, page, changed) => {
  for (const host of document.querySelectorAll(".pager")) {
    const go = (to, label, name) => {
      const button = el("button", { type: "button", class: "small", "aria-label": name }, label);
      button.disabled = to < 1 || to > numPages || to === page;
      button.addEventListener("click", () => changed({ page: String(to) }));
      return button;
    };
    host.replaceChildren(...(numPages > 1 ? [go(1, "First", "First page"), go(page - 1, "Previous", "Previous page"), el("span", {}, `${page} of ${numPages}`), go(page + 1, "Next", "Next page"), go(numPages, "Last", "Last page")] : []));
  }
};

const showCards = (changed) => {
  const shown = chosenClips();
  const numPages = Math.max(1, Math.ceil(shown.length / PAGE));
  const page = Math.min(numPages, Math.max(1, Number(state.page) || 1));
  const some = shown.slice((page - 1) * PAGE, page * PAGE);
  byId("count").textContent = shown.length === data.clips.length ? count(shown.length, "request") : `${shown.length.toLocaleString("en")} of ${count(data.clips.length, "request")}`;
  byId("cards").replaceChildren(...some.map((clip) => card(clip, shown, changed)));
  if (!shown.length) byId("cards").append(el("p", { class: "empty" }, data.clips.length ? "Nothing is like that: take a filter away." : "There are no clips yet."));
  showPager(numPages, page, changed);
};
