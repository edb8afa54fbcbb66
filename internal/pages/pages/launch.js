'use strict';
// The page launches by itself, once somebody really looks at it. Submitted while
// the page still loads, it leaves no step in the history to launch from again.
(() => {
  const form = document.getElementById('launch');
  const button = form.querySelector('button');
  const message = document.getElementById('message');
  const launch = () => {
    message.textContent = 'Launching …';
    button.disabled = true;
    form.submit();
  };
  addEventListener('pageshow', (event) => {
    if (event.persisted) { // come back to
      message.textContent = '';
      button.disabled = false;
    }
  });
  if (document.prerendering) {
    document.addEventListener('prerenderingchange', launch, { once: true });
  } else {
    launch();
  }
})();
