// Failures that are alike, with how many there are and which.
const showFailures = (openKey, changed) => {
  const host = byId("view-failures");
  const total = data.failures.reduce((sum, group) => sum + group.count, 0);
  byId("tab-failures").textContent = total ? `Failures (${total.toLocaleString("en")})` : "Failures";
  if (!total) {
    host.append(el("p", { class: "empty" }, "No failures are on record."));
    return;
  }
  if (total < data.run.failed && !data.whole_output) host.append(el("p", { class: "note" }, `${count(data.run.failed - total, "request")} that failed in this run without a record that is shown here: later runs may have rendered them.`));
  const all = el("button", { type: "button" }, "Show them among the clips");
  all.addEventListener("click", () => changed({ tab: "clips", status: "failed", q: "", tag: "", size: "", seeds: "" }));
  host.append(all, ...data.failures.map((group) => el("article", { class: "group" },
    el("p", {}, el("strong", {}, `${group.count.toLocaleString("en")} x`), " ", el("span", { class: "badge bad" }, group.class), ` ${group.cause} at ${group.stage}`),
    words(group.message, { class: "error" }, "p"),
    el("details", { open: group.count <= 5 || undefined }, el("summary", {}, group.count > group.keys.length ? `The first ${group.keys.length} keys` : "Keys"),
      el("div", { class: "chips" }, group.keys.map((key) => {
        const button = el("button", { type: "button", class: "chip mono" }, key.slice(0, 12));
        button.addEventListener("click", () => openKey(key));
        return button;
      }))))));
};
