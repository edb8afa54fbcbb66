'use strict';
// Shows times in the visitor's time zone and language, and tries again by itself what can
// succeed later.
for (const time of document.querySelectorAll('time')) {
  time.textContent = new Date(time.dateTime).toLocaleString(undefined, { dateStyle: 'long', timeStyle: 'short' });
}
(() => {
  const form = document.querySelector('form[data-retry]');
  if (form === null) {
    return;
  }
  const message = document.getElementById('retry');
  const due = performance.now() + form.dataset.retry * 1000;
  const timer = setInterval(() => {
    const seconds = Math.ceil((due - performance.now()) / 1000);
    if (seconds > 0) {
      message.textContent = `This page tries again by itself in ${seconds} seconds.`;
      return;
    }
    clearInterval(timer);
    message.textContent = 'Launching …';
    form.submit();
  }, 1000);
})();
