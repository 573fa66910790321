//! The templates that routes' metadata has, each compiled once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use policy::path::RequestPath;
use policy::route::{Binding, Template};

/// How many templates are kept. They come from Envoy's routes, not from clients; a configuration that changes often brings
/// new ones, and forgets none.
const KEPT: usize = 1024;

/// Compiled templates by their texts; a text that is none is kept as one that no path fits.
#[derive(Default)]
pub struct Templates(RefCell<BTreeMap<String, Option<Rc<Template>>>>);

impl Templates {
    /// How a path stands to the template of this text.
    pub fn bind<'a>(&self, text: &str, path: &'a RequestPath<'_>) -> Binding<'a> {
        self.compiled(text).map_or(Binding::NoFit, |template| template.bind(path))
    }

    fn compiled(&self, text: &str) -> Option<Rc<Template>> {
        let compile = || Template::compile(text).ok().map(Rc::new);
        let Ok(mut kept) = self.0.try_borrow_mut() else { return compile() };
        if let Some(template) = kept.get(text) {
            return template.clone();
        }
        if kept.len() >= KEPT {
            kept.clear();
        }
        let template = compile();
        kept.insert(text.to_owned(), template.clone());
        template
    }
}

#[cfg(test)]
mod tests {
    use policy::path::Paths;

    use super::*;

    #[test]
    fn a_template_is_compiled_once_and_their_number_is_bounded() {
        let templates = Templates::default();
        let path = Paths::default().read(b"GET", b"/w/acme").unwrap();
        let first = templates.compiled("/w/{workspace}").unwrap();
        assert_eq!(templates.bind("/w/{workspace}", &path), Binding::Fits { workspace: Some("acme") });
        assert!(Rc::ptr_eq(&first, &templates.compiled("/w/{workspace}").unwrap()));
        let many = "/{a}".repeat(26);
        for text in ["", "no template", &many] {
            assert_eq!(templates.bind(text, &path), Binding::NoFit, "{text}");
        }
        assert_eq!(templates.0.borrow().len(), 4, "one that is none is not compiled again either");
        for number in 0..2 * KEPT {
            assert_eq!(templates.bind(&format!("/{number}"), &path), Binding::NoFit);
        }
        assert!(templates.0.borrow().len() <= KEPT);
    }
}
