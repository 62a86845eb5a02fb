// Filters and sorts the rows that are in the page, and shows the rankings of one tier. Without it, all are shown, in
// their own order.
"use strict";
(function () {
  var form = document.getElementById("filters");
  if (!form) return;
  var fields = ["board", "device", "category", "tier"];
  var boards = Array.from(document.querySelectorAll("section.board"));
  var shown = document.getElementById("shown");
  var none = document.getElementById("none");
  var all = document.getElementById("all");
  var presetNote = document.getElementById("preset-note");
  var whole = ".ranking[data-choices~=all]";
  var notice = "", missing = "There is no such board here. ";
  var preset = { board: "", device: "", category: "", tier: form.dataset.preset };

  function state() {
    var found = {};
    fields.forEach(function (name) { found[name] = form.elements[name].value; });
    return found;
  }

  function passes(row, wanted) {
    return (!wanted.category || row.dataset.category === wanted.category)
      && (!wanted.device || row.dataset.device.split(" ").includes(wanted.device));
  }

  // A row may count fewer sessions where more is asked of them: each choice of tier has a table of its own.
  function rank(board, tier) {
    return Array.from(board.querySelectorAll(".ranking")).filter(function (ranking) {
      ranking.hidden = !ranking.dataset.choices.split(" ").includes(tier);
      return !ranking.hidden;
    });
  }

  // The bracket of a tie group ends where its visible rows end.
  function bracket(rows) {
    var visible = rows.filter(function (row) { return !row.hidden; });
    visible.forEach(function (row, index) {
      var group = row.dataset.group, above = visible[index - 1], below = visible[index + 1];
      var cell = row.querySelector(".tie");
      cell.classList.toggle("first", group !== "" && !(above && above.dataset.group === group));
      cell.classList.toggle("last", group !== "" && !(below && below.dataset.group === group));
    });
  }

  // Shows the rows that pass, and what the charts draw of them; returns their numbers.
  function narrow(ranking, here, wanted) {
    var rows = Array.from(ranking.querySelectorAll(".rows tbody tr")), visible = new Set();
    rows.forEach(function (row) {
      row.hidden = !(here && passes(row, wanted));
      if (!row.hidden) visible.add(row.dataset.row);
    });
    ranking.querySelectorAll(".series").forEach(function (series) {
      series.toggleAttribute("hidden", !visible.has(series.dataset.row));
    });
    // Axes of what others have say nothing of the rows that are left.
    ranking.querySelectorAll(".chart").forEach(function (chart) {
      var drawn = chart.querySelector(".series");
      chart.hidden = drawn !== null && chart.querySelector(".series:not([hidden])") === null;
    });
    bracket(rows);
    return visible;
  }

  function apply() {
    var wanted = state(), total = 0, count = 0;
    boards.forEach(function (board) {
      var here = !wanted.board || board.id === wanted.board, rowsLeft = new Set();
      rank(board, wanted.tier).forEach(function (ranking) {
        var visible = narrow(ranking, here, wanted);
        ranking.hidden = visible.size === 0;  // of several by device, the one that the filter leaves
        visible.forEach(function (row) { rowsLeft.add(row); });  // one, also on two devices
      });
      var left = rowsLeft.size;
      var rows = board.querySelectorAll(whole + " .rows tbody tr").length;
      board.hidden = !here || (rows > 0 && left === 0);
      total += rows;
      count += left;
    });
    var message = notice + count + " of " + total + (total === 1 ? " row" : " rows") + " shown";
    if (shown.textContent !== message) shown.textContent = message;
    none.hidden = count > 0;
    if (presetNote) presetNote.hidden = wanted.tier !== preset.tier;
    all.hidden = count === total && !document.querySelector(whole + "[hidden]");
  }

  function choose(wanted) {
    fields.forEach(function (name) {
      var options = Array.from(form.elements[name].options).map(function (option) { return option.value; });
      form.elements[name].value = options.includes(wanted[name]) ? wanted[name] : preset[name];
    });
    apply();
  }

  // The address holds all that is chosen where any differs from the preset, which may be another one tomorrow; a
  // fragment without "=" is a place in the page.
  function read() {
    var fragment = location.hash.slice(1), wanted = Object.assign({}, preset);
    var board = boards.find(function (other) { return other.id === fragment; });
    notice = "";
    if (fragment.includes("=")) {
      new URLSearchParams(fragment).forEach(function (value, name) { if (name in wanted) wanted[name] = value; });
    } else if (board) {
      wanted.tier = "all";
    } else if (fragment && document.getElementById(fragment)) {
      return;
    } else if (fragment) {
      notice = missing;
    }
    if (wanted.board && !boards.some(function (other) { return other.id === wanted.board; })) notice = missing;
    choose(wanted);
    if (board) board.scrollIntoView();
  }

  function write() {
    var wanted = state(), parts = new URLSearchParams();
    var differs = fields.some(function (name) { return wanted[name] !== preset[name]; });
    if (differs) fields.forEach(function (name) { if (wanted[name]) parts.set(name, wanted[name]); });
    var fragment = parts.toString();
    if (fragment || location.hash) history.replaceState(null, "", "#" + fragment);
  }

  // A link to a place in the page would take the filters out of the address: they stay, and the place is shown.
  function follow(event) {
    var link = event.target.closest("a[href]");
    if (!link || event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    if (link.href.split("#")[0] !== location.href.split("#")[0] || !location.hash.includes("=")) return;
    var place = document.getElementById(link.hash.slice(1));
    if (!place) return;
    event.preventDefault();
    if (!place.hasAttribute("tabindex")) place.tabIndex = -1;
    place.focus({ preventScroll: true });
    place.scrollIntoView();
  }

  function firstOrder(key) {
    return key === "" ? "" : key === "name" || key === "cost" ? "ascending" : "descending";
  }

  // Unknown values are empty and stay last; no order is the board's own.
  function arrange(table, key, order) {
    var rows = Array.from(table.tBodies[0].rows), numeric = key !== "name";
    var sign = order === "descending" ? -1 : 1;
    table.querySelectorAll("th").forEach(function (heading) {
      if (order !== "" && heading.dataset.key === key) heading.setAttribute("aria-sort", order);
      else heading.removeAttribute("aria-sort");
    });
    rows.sort(function (one, other) {
      if (order === "") return one.dataset.place - other.dataset.place;
      var a = one.dataset[key], b = other.dataset[key];
      if (a === "" || b === "") return (a === "") - (b === "");
      return sign * (numeric ? Number(a) - Number(b) : a.localeCompare(b)) || one.dataset.place - other.dataset.place;
    });
    rows.forEach(function (row) { table.tBodies[0].appendChild(row); });
    if (order === "") {
      delete table.dataset.sorted;
      delete table.dataset.order;
    } else {
      table.dataset.sorted = key;
      table.dataset.order = order;
    }
    bracket(rows);
  }

  // The third click brings the board's own order back.
  function turn(table, key) {
    var order = table.dataset.sorted === key ? table.dataset.order : "", first = firstOrder(key);
    var second = first === "descending" ? "ascending" : "descending";
    var next = order === "" ? first : order === first ? second : "";
    tables.forEach(function (other) { arrange(other, key, next); });
    form.elements.sort.value = next === "" ? "" : key;
  }

  var tables = [];
  document.querySelectorAll(".ranking .rows").forEach(function (table) {
    tables.push(table);
    Array.from(table.tBodies[0].rows).forEach(function (row, index) { row.dataset.place = index; });
    table.querySelectorAll("th.sortable").forEach(function (heading) {
      var button = document.createElement("button");
      button.type = "button";
      button.textContent = heading.textContent;
      // On a phone the buttons are hidden, and the columns keep their names.
      heading.setAttribute("aria-label", heading.textContent);
      heading.replaceChildren(button);
      button.addEventListener("click", function () { turn(table, heading.dataset.key); });
    });
  });

  form.hidden = false;
  form.addEventListener("change", function (event) {
    notice = "";
    if (event.target.name === "sort") {
      tables.forEach(function (table) { arrange(table, event.target.value, firstOrder(event.target.value)); });
      return;
    }
    apply();
    write();
  });
  form.addEventListener("submit", function (event) { event.preventDefault(); });
  all.addEventListener("click", function () {
    notice = "";
    choose({ board: "", device: "", category: "", tier: "all" });
    write();
    form.elements.tier.focus();
  });
  window.addEventListener("hashchange", read);
  // On paper nothing can be unfolded.
  window.addEventListener("beforeprint", function () {
    document.querySelectorAll("details").forEach(function (details) { details.open = true; });
  });
  document.addEventListener("click", follow);
  form.elements.sort.value = "";  // a browser may bring back what was chosen before a reload
  choose(preset);
  read();
})();
