//! A tab of a browser that shows several.

use super::chromium::Chromium;
use crate::harness::wait::PATIENCE;
use fantoccini::wd::WindowHandle;
use serde_json::{Value, json};

pub(super) struct Tab<'a> {
    browser: &'a Chromium,
    handle: WindowHandle,
}

impl<'a> Tab<'a> {
    /// A new one, at `url`.
    #[track_caller]
    pub(super) fn open(browser: &'a Chromium, url: &str) -> Self {
        Self { browser, handle: browser.open_tab(url) }
    }

    /// The next commands are for this one.
    #[track_caller]
    pub(super) fn turn(&self) -> &'a Chromium {
        self.browser.turn_to(&self.handle);
        self.browser
    }

    #[track_caller]
    pub(super) fn run(&self, body: &str) -> Value {
        self.turn().run(body)
    }

    /// Waits until the elements that a selector finds have these texts, and there are no more.
    #[track_caller]
    pub(super) fn shows(&self, selector: &str, expected: &[&str]) {
        let outcome = self.turn().run_with(
            r#"
            const [selector, expected, patience] = arguments;
            const shown = () => [...document.querySelectorAll(selector)].map((element) => element.textContent);
            const end = Date.now() + patience;
            await until(() => JSON.stringify(shown()) === JSON.stringify(expected) || Date.now() > end);
            return shown();
            "#,
            vec![json!(selector), json!(expected), json!(PATIENCE.as_millis() as u64 / 2)],
        );
        assert_eq!(outcome, json!(expected));
    }
}
