// Puts the views together.
const TABS = ["clips", "failures", "run"];
const byKey = new Map(data.clips.map((clip) => [clip.key, clip]));
const openKey = (key) => { const clip = byKey.get(key); if (clip) openClip(clip, chosenClips()); };
let redrawRun = () => {};

const changed = (values) => {
  Object.assign(state, "page" in values ? {} : { page: "1" }, values);
  writeHash();
  show();
  if ("page" in values) byId("view-clips").scrollIntoView();
};

const show = () => {
  for (const name of TABS) {
    const isOpen = (TABS.includes(state.tab) ? state.tab : "clips") === name;
    byId(`view-${name}`).hidden = !isOpen;
    byId(`tab-${name}`).setAttribute("aria-selected", String(isOpen));
    byId(`tab-${name}`).tabIndex = isOpen ? 0 : -1;
  }
  if (state.tab === "run") redrawRun();
  fillFilters();
  showCards(changed);
};

const showTabs = () => {
  TABS.forEach((name, index) => {
    const tab = byId(`tab-${name}`);
    tab.addEventListener("click", () => changed({ tab: name, page: state.page }));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const other = byId(`tab-${TABS[(index + step + TABS.length) % TABS.length]}`);
      other.click();
      other.focus();
    });
  });
};

const showRun = () => {
  const host = byId("view-run");
  if (!data.timeline.seconds) {
    host.append(el("p", { class: "empty" }, "The run has left no events."));
    return;
  }
  const throughput = el("div", { class: "plot" });
  const timeline = el("div", { class: "plot" });
  const how = data.timeline.spans.length ? "A bar is a request; click it to see its clip." : `${data.timeline.num_spans.toLocaleString("en")} pieces of work are too many to draw one by one: the colour tells how much of each ${seconds(data.timeline.bin_s)} a worker was busy. wanray report --trace has them all.`;
  put(host,
    heading(2, "Estimate against reality"), estimateTable(), hasEstimate() ? "" : el("p", { class: "hint" }, "Of this run there is no estimate: its output has no plan.json, or its plan reaches none."),
    heading(2, "Pools"), poolTable(),
    heading(2, "Timeline"), el("p", { class: "hint" }, `${how} Red marks are gangs that were lost or rebuilt.`), timeline,
    heading(2, "Throughput"), throughput,
    data.latencies.length ? [heading(2, "Latency"), latencyTable(), el("p", { class: "hint" }, "Quantiles are right to within 5 %.")] : "");
  const drawTimelineAgain = showTimeline(timeline, openKey);
  redrawRun = () => {
    throughput.replaceChildren(throughputPlot(innerWidthOf(throughput)));
    drawTimelineAgain();
  };
};

showHead();
showNumbers();
showTabs();
showFilters(changed);
showFailures(openKey, changed);
showRun();
readHash();
const linked = state.clip;
show();
if (linked) openKey(linked);
addEventListener("hashchange", () => { readHash(); show(); });
addEventListener("resize", () => { if (state.tab === "run") redrawRun(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (state.tab === "run") redrawRun(); });
