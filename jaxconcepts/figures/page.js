// Draws the page's figures with Plotly from what `figures.interactive` tells of them. No network, no state but the DOM.
(async () => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const unpack = async (id) => {
    const bytes = Uint8Array.from(atob(document.getElementById(id).textContent.trim()), (c) => c.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  };
  const ink = () => getComputedStyle(document.documentElement).getPropertyValue("--ink").trim();
  const line = () => getComputedStyle(document.documentElement).getPropertyValue("--line").trim();
  // Colours that are too dark to be seen on a dark page are mixed with white.
  const seen = (color) => {
    if (Array.isArray(color)) return color.map(seen);
    if (!dark.matches || !/^#/.test(color)) return color;
    const rgb = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
    const light = (0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]) / 255;
    const mix = Math.max(0, 0.62 - light);
    return "#" + rgb.map((c) => Math.round(c + (255 - c) * mix).toString(16).padStart(2, "0")).join("") + color.slice(7);
  };
  const wrapped = (text, width) => {
    const lines = [""];
    for (const word of text.replace(/&/g, "&amp;").replace(/</g, "&lt;").split(/ /)) {
      const fits = (lines[lines.length - 1] + word).length * 6.4 < width;
      if (fits || !lines[lines.length - 1]) lines[lines.length - 1] += (lines[lines.length - 1] ? " " : "") + word;
      else lines.push(word);
    }
    return lines.join("<br>").replace(/\n/g, "<br>");
  };
  const height = (text) => text.split("<br>").length * 14;

  function axis(of, name, across, panel, pixels) {
    const [low, high] = of.scale === "log" ? of.limits.map(Math.log10) : of.limits;
    const made = {
      type: of.scale === "log" ? "log" : "linear", range: of.inverted ? [high, low] : [low, high], zeroline: false,
      gridcolor: line(), linecolor: line(), showline: true, tickfont: { size: 10 }, nticks: Math.max(2, Math.round(pixels / 55)),
      showticklabels: panel.labelled[across ? "x" : "y"], automargin: false, ticks: "outside", ticklen: 3, tickcolor: line(),
    };
    if (of.ticks) Object.assign(made, { tickmode: "array", tickvals: of.ticks, ticktext: of.texts, showgrid: of.ticks.length > 0 });
    if (of.ticks && !of.ticks.length) made.ticks = "";
    if (of.integer && !of.ticks && Math.abs(high - low) < 9) made.dtick = 1;
    if (of.several && of.shared >= 0 && panel.first[across ? "x" : "y"] !== name) made.matches = panel.first[across ? "x" : "y"];
    return made;
  }

  function trace(of, panel, hidden, bar) {
    const where = { xaxis: panel.xname, yaxis: panel.yname, visible: !hidden.has(of.name), showlegend: false, name: of.name };
    const [xlabel, ylabel] = [panel.xlabel, panel.ylabel].map((text) => text.replace(/</g, "&lt;"));
    if (of.kind === "cells") {
      return { ...where, type: "heatmap", x: of.x, y: of.y, z: of.z, zmin: 0, zmax: 1, colorscale: of.colors, showscale: bar,
        customdata: of.shown, hovertemplate: `${xlabel} %{x:.4~g}<br>${ylabel} %{y:.4~g}<br><b>%{customdata:.4~g}</b><extra></extra>` };
    }
    if (of.kind === "area") {
      return { ...where, x: of.x, y: of.y, fill: "toself", mode: "lines", line: { width: 0 },
        // Bands, which say nothing of themselves, are to shine less on a dark page.
        fillcolor: !of.text && dark.matches && of.color.length === 7 ? of.color + "50" : seen(of.color),
        hoveron: "fills", text: [of.name, of.text].filter(Boolean).join(": "), hoverinfo: of.text ? "text" : "skip" };
    }
    const shown = of.shown ? "%{customdata:.5~g}" : "%{x:.5~g}";
    return { ...where, type: "scatter", x: of.x, y: of.y, customdata: of.shown, text: of.values,
      mode: [of.width ? "lines" : "", of.symbol ? "markers" : ""].filter(Boolean).join("+") || "lines",
      line: { color: Array.isArray(of.color) ? undefined : seen(of.color), width: 1.4 * of.width, dash: of.dash },
      marker: { color: seen(of.color), size: Math.max(4, of.size), symbol: of.symbol || "circle", line: { width: 0 } },
      hovertemplate: `${xlabel} ${shown}<br>${ylabel} %{y:.4~g}${of.values ? "<br>%{text}" : ""}<extra>${of.name.replace(/</g, "&lt;")}</extra>` };
  }

  function draw(box, figure) {
    const plot = box.querySelector(".plot"), hidden = box.hiddenNames, frames = figure.kind === "frames";
    const most = figure.columns * (figure.columns > 1 ? 420 : 640) + 140;
    const least = figure.kind === "flow" ? 0 : figure.columns * 112 + 60;
    const width = Math.max(Math.min(box.clientWidth, most), least);
    const right = figure.bar ? 84 : 12, left = 62;
    let panels = figure.panels.map((panel, number) => ({ ...panel, number }));
    if (frames) panels = panels.filter((panel) => panel.row === box.frame).map((panel) => ({ ...panel, row: 0 }));
    const fitting = Math.max(1, Math.floor((width - left - right) / 230));
    const columns = figure.kind === "flow" ? Math.min(figure.columns, fitting) : figure.columns;
    if (columns !== figure.columns) panels.forEach((panel, k) => {
      panel.title ||= panels.slice(0, k).findLast((other) => other.title && other.of === panel.row)?.title || "";
      panel.of = panel.row;
      panel.row = Math.floor(k / columns); panel.column = k % columns;
    });
    const rows = 1 + Math.max(...panels.map((panel) => panel.row));
    const inner = (key) => panels.some((panel) => !panel[key].several && (panel[key].ticks === null || panel[key].ticks.length));
    const labelled = panels.some((panel) => panel.column && panel.y.label && !panel.y.several);
    const gapX = columns > 1 ? (inner("y") ? 46 : 16) + (labelled ? 22 : 0) : 0, gapY = inner("x") ? 30 : 10;
    const wide = (width - left - right - gapX * (columns - 1)) / columns;
    const ratio = frames || panels[0].equal ? 1 : Math.min(1.1, Math.max(0.42, (figure.inches[1] - 0.5) / figure.rows / (figure.inches[0] / figure.columns)));
    const high = Math.max(90, Math.min(420, wide * ratio));
    panels.forEach((panel) => { panel.text = wrapped(panel.title, wide); });
    const titles = [...Array(rows).keys()].map((row) => Math.max(...panels.filter((p) => p.row === row).map((p) => p.title ? height(p.text) + 8 : 6)));
    const labels = panels.some((panel) => panel.x.label) ? 22 : 0;
    const below = 34 + (figure.x || labels ? 18 : 0);
    const tops = []; let at = 4;
    titles.forEach((title, row) => { at += title; tops[row] = at; at += high + (row < rows - 1 ? gapY + labels * (inner("x") ? 1 : 0) : 0); });
    const total = at + below;
    const layout = { width, height: total, margin: { l: 0, r: 0, t: 0, b: 0 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: ink(), size: 11, family: "system-ui, DejaVu Sans, sans-serif" }, hovermode: "closest", annotations: [], dragmode: "zoom",
      hoverlabel: { align: "left" } };
    const note = (text, x, y, more) => layout.annotations.push({ text, x, y, xref: "paper", yref: "paper", showarrow: false, font: { size: 11 }, ...more });
    const firsts = { x: {}, y: {} };
    panels.forEach((panel, k) => {
      const id = k ? String(k + 1) : "";
      panel.xname = "x" + id; panel.yname = "y" + id;
      panel.first = {};
      for (const key of ["x", "y"]) panel.first[key] = firsts[key][panel[key].shared] ??= key + id;
      const x0 = left + panel.column * (wide + gapX), y0 = tops[panel.row];
      panel.labelled = {
        x: !panel.x.several || !panels.some((other) => other.column === panel.column && other.row > panel.row),
        y: !panel.y.several || panel.column === 0,
      };
      panel.xlabel = panel.x.label || figure.x || "x"; panel.ylabel = panel.y.label || figure.y || "y";
      layout["xaxis" + id] = { ...axis(panel.x, panel.xname, true, panel, wide), domain: [x0 / width, (x0 + wide) / width], anchor: panel.yname };
      layout["yaxis" + id] = { ...axis(panel.y, panel.yname, false, panel, high), domain: [1 - (y0 + high) / total, 1 - y0 / total], anchor: panel.xname };
      if (panel.title) note(panel.text, (x0 + wide / 2) / width, 1 - (y0 - 3) / total, { xanchor: "center", yanchor: "bottom" });
      if (panel.x.label && (!panel.x.several || panel.labelled.x)) note(panel.x.label, (x0 + wide / 2) / width, 1 - (y0 + high + 22) / total, { yanchor: "top" });
      if (panel.y.label && !frames && (panel.column === 0 || !panel.y.several)) note(panel.y.label, (x0 - (panel.labelled.y ? 44 : 6)) / width, 1 - (y0 + high / 2) / total, { textangle: -90, xanchor: "center", yanchor: "middle" });
      for (const text of panel.notes) layout.annotations.push({ text: text.text.replace(/</g, "&lt;").replace(/\n/g, "<br>"), x: text.x, y: text.y, showarrow: false,
        xref: text.of_data ? panel.xname : panel.xname + " domain", yref: text.of_data ? panel.yname : panel.yname + " domain",
        xanchor: text.anchor, font: { size: 9, color: seen(text.color) } });
    });
    if (figure.x) note(figure.x, (left + (width - left - right) / 2) / width, 0, { yanchor: "bottom" });
    if (figure.y) note(figure.y, 12 / width, 1 - (tops[0] + (at - tops[0]) / 2) / total, { textangle: -90, xanchor: "center", yanchor: "middle" });
    const numbers = new Map(panels.map((panel) => [panel.number, panel]));
    const shown = figure.traces.filter((of) => numbers.has(of.panel));
    const bars = figure.bar && { thickness: 10, len: high / total, y: 1 - tops[0] / total, yanchor: "top", x: (width - right + 10) / width, xanchor: "left", outlinewidth: 0,
      tickvals: figure.bar.ticks, ticktext: figure.bar.texts, tickfont: { size: 10 }, title: { text: wrapped(figure.bar.label, 130), side: "right", font: { size: 10 } } };
    const traces = shown.map((of) => trace(of, numbers.get(of.panel), hidden, false));
    if (figure.bar) traces.push({ x: [null], y: [null], xaxis: panels[0].xname, yaxis: panels[0].yname, mode: "markers", hoverinfo: "skip", showlegend: false,
      marker: { color: [0], cmin: 0, cmax: 1, colorscale: figure.bar.colors, showscale: true, colorbar: bars } });
    if (frames) box.querySelector("output").textContent = panels[0].y.label;
    return Plotly.react(plot, traces, layout, { displaylogo: false, displayModeBar: false, responsive: false });
  }

  function prepare(box, figure) {
    box.hiddenNames ??= new Set();
    if (box.prepared) return;
    box.prepared = true;
    const legend = document.createElement("div");
    legend.className = "legend";
    for (const of of figure.traces.filter((one) => one.legend)) {
      const button = document.createElement("button");
      button.type = "button"; button.setAttribute("aria-pressed", "true");
      const swatch = document.createElement("i");
      button.append(swatch, of.name);
      button.paint = () => { swatch.style.borderTop = `${of.kind === "area" ? 9 : 3}px ${of.dash && of.dash !== "solid" ? "dashed" : "solid"} ${seen([of.color].flat()[0])}`; };
      button.onclick = () => {
        const off = box.hiddenNames.delete(of.name) ? "true" : (box.hiddenNames.add(of.name), "false");
        button.setAttribute("aria-pressed", off);
        draw(box, figure);
      };
      legend.append(button);
    }
    box.prepend(legend);
    if (figure.kind === "frames") {
      const label = document.createElement("label"), slider = document.createElement("input"), output = document.createElement("output");
      Object.assign(slider, { type: "range", min: 0, max: figure.rows - 1, value: figure.rows - 1 });
      box.frame = figure.rows - 1;
      slider.oninput = () => { box.frame = Number(slider.value); draw(box, figure); };
      label.className = "slider"; label.append("training ", slider, output);
      legend.after(label);
    }
  }

  const boxes = [...document.querySelectorAll(".interactive")];
  try {
    const figures = JSON.parse(await unpack("figures"));
    const script = document.createElement("script");
    script.textContent = await unpack("library");
    document.head.append(script);
    const show = async (box) => {
      if (!box.clientWidth) return;
      const figure = figures[box.dataset.figure];
      prepare(box, figure);
      box.querySelectorAll(".legend button").forEach((button) => button.paint());
      await draw(box, figure);
      box.dataset.drawn = box.clientWidth;
    };
    const all = async (again) => { for (const box of boxes) if (again || !box.dataset.drawn) await show(box); };
    if (location.hash === "#all") document.querySelectorAll("details").forEach((part) => { part.open = true; });
    await all(false);
    document.querySelectorAll("details").forEach((part) => part.addEventListener("toggle", () => all(false)));
    dark.addEventListener("change", () => all(true));
    let waiting;
    addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(() => all(true), 150); });
    document.body.dataset.ready = "yes";
  } catch (error) {
    console.error(error);
    for (const box of boxes) box.innerHTML = `<img alt="" src="figures/${encodeURIComponent(box.dataset.figure)}.png">`;
  }
})();
