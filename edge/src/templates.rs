//! A cache of the path templates in routes' metadata, each compiled once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use policy::path::RequestPath;
use policy::route::{Binding, Template};

/// How many templates the cache holds. They come from Envoy's routes, not from clients, but a configuration that
/// changes often adds new ones and removes none.
const MAX_TEMPLATES: usize = 1024;

/// Compiled templates by their texts. An invalid template is cached as `None`, which matches no path.
#[derive(Default)]
pub struct Templates(RefCell<BTreeMap<String, Option<Rc<Template>>>>);

impl Templates {
    /// Matches a path against the template with this text.
    pub fn bind<'a>(&self, text: &str, path: &'a RequestPath<'_>) -> Binding<'a> {
        self.compiled(text).map_or(Binding::NoMatch, |template| template.bind(path))
    }

    fn compiled(&self, text: &str) -> Option<Rc<Template>> {
        let compile = || Template::compile(text).ok().map(Rc::new);
        let Ok(mut cache) = self.0.try_borrow_mut() else { return compile() };
        if let Some(template) = cache.get(text) {
            return template.clone();
        }
        if cache.len() >= MAX_TEMPLATES {
            cache.clear();
        }
        let template = compile();
        cache.insert(text.to_owned(), template.clone());
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
        assert_eq!(templates.bind("/w/{workspace}", &path), Binding::Match { workspace: Some("acme") });
        assert!(Rc::ptr_eq(&first, &templates.compiled("/w/{workspace}").unwrap()));
        let many = "/{a}".repeat(26);
        for text in ["", "no template", &many] {
            assert_eq!(templates.bind(text, &path), Binding::NoMatch, "{text}");
        }
        assert_eq!(templates.0.borrow().len(), 4, "an invalid template is not compiled again either");
        for number in 0..2 * MAX_TEMPLATES {
            assert_eq!(templates.bind(&format!("/{number}"), &path), Binding::NoMatch);
        }
        assert!(templates.0.borrow().len() <= MAX_TEMPLATES);
    }
}
