// Reports what goes wrong in this page to the site: each error once, ten at most.
// <script src="..." data-url="{% url 'django_safecache:browser_errors' %}"></script>
(function () {
  "use strict";
  var script = document.currentScript;
  var url = script && script.getAttribute("data-url");
  var left = 10;
  var sent = {};

  function text(value, length) {
    return String(value || "").slice(0, length);
  }

  // Never throws: what is thrown may be anything, with properties that throw too.
  function report(thrown, message, source) {
    try {
      var error = thrown && typeof thrown === "object" ? thrown : {};
      var body = JSON.stringify({
        name: text(error.name, 80) || "Error",
        message: text(error.message || message || String(thrown), 500),
        // Without queries and fragments, which may hold what is nobody's business.
        source: text(source, 400).split(/[?#]/)[0],
        stack: text(error.stack, 4000).replace(/[?#][^\s:)]*/g, "").slice(0, 1500),
      });
      var key = body.replace(/:\d+/g, "");
      if (left < 1 || sent[key]) return;
      left -= 1;
      sent[key] = true;
      fetch(url, {
        method: "POST",
        body: body,
        credentials: "same-origin",
        headers: { "Content-Type": "application/json" },
        keepalive: true,
      }).catch(function () {});
    } catch (ignored) {}
  }

  if (!url || !window.fetch) return;
  window.addEventListener("error", function (event) {
    // All that a browser says of scripts from elsewhere is "Script error."
    if (event.error || event.filename) {
      report(event.error, event.message, event.filename);
    }
  });
  window.addEventListener("unhandledrejection", function (event) {
    report(event.reason, "", "");
  });
})();
