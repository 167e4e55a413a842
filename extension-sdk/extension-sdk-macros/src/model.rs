//! What an interface says, taken from the trait and checked: every mistake is reported at its own place, all of
//! them at once.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens as _, format_ident};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{
    Attribute, Error, Expr, ExprLit, FnArg, GenericArgument, Ident, ItemTrait, Lit, Meta, Pat, PathArguments,
    ReceiverKind, Result, ReturnType, TraitItem, TraitItemFn, Type,
};

use crate::fast;

/// LIMIT: bytes of a method's or interface's name, as the wire has it.
const NAME_BYTES_MAX: usize = 64;

/// What the typed client has besides the interface's methods.
const CLIENT_METHODS: [&str; 2] = ["new", "with_timeout"];

const OWNED_ARGUMENT: &str = "an argument is an owned value, because it comes from another process: use `String` for `&str`, \
     `Vec<T>` for `&[T]`; only `cx: &Context` is borrowed";

/// A trait that is an interface.
pub(crate) struct Interface {
    pub(crate) item: ItemTrait,
    pub(crate) documentation: String,
    pub(crate) methods: Vec<Method>,
}

/// One method of an interface.
pub(crate) struct Method {
    pub(crate) item: TraitItemFn,
    pub(crate) name: Ident,
    /// Name of the struct that holds the arguments, unless one argument is all of them.
    pub(crate) message_name: Ident,
    /// The name on the wire.
    pub(crate) wire_name: String,
    pub(crate) documentation: String,
    pub(crate) is_idempotent: bool,
    pub(crate) is_pure: bool,
    pub(crate) is_fast: bool,
    pub(crate) is_async: bool,
    /// In the order of the method's own list, the context among them.
    pub(crate) parameters: Vec<Parameter>,
    /// `T` of `Result<T, _>`.
    pub(crate) result: Type,
}

/// One parameter of a method.
pub(crate) enum Parameter {
    /// `&Context`.
    Context,
    /// What is sent.
    Argument(Box<Argument>),
}

/// One argument that is sent.
pub(crate) struct Argument {
    pub(crate) name: Ident,
    pub(crate) kind: Type,
    /// `#[serde(...)]` and documentation, which move to the message.
    pub(crate) attributes: Vec<Attribute>,
}

impl Method {
    pub(crate) fn arguments(&self) -> impl Iterator<Item = &Argument> {
        self.parameters.iter().filter_map(|parameter| match parameter {
            Parameter::Argument(argument) => Some(&**argument),
            Parameter::Context => None,
        })
    }

    /// The argument that is the whole body of a call.
    pub(crate) fn whole_body(&self) -> Option<&Argument> {
        let mut arguments = self.arguments();
        match (arguments.next(), arguments.next()) {
            (Some(only), None) if only.name == "request" => Some(only),
            _ => None,
        }
    }
}

impl Interface {
    pub(crate) fn parse(arguments: TokenStream, item: TokenStream) -> Result<Self> {
        if !arguments.is_empty() {
            return Err(Error::new(arguments.span(), "`#[interface]` takes no arguments"));
        }
        let mut item: ItemTrait = syn::parse2(item).map_err(|error| {
            Error::new(error.span(), format!("`#[interface]` stands on a trait: {error}"))
        })?;
        let mut errors = Errors::default();
        if !item.generics.params.is_empty() {
            errors.add(
                &item.generics,
                "an interface has no generic parameters: its methods are called by name from other processes",
            );
        }
        errors.name(&item.ident);
        let documentation = documentation(&item.attrs);
        let interface_name = item.ident.unraw();
        let mut methods = Vec::new();
        for item in std::mem::take(&mut item.items) {
            match item {
                TraitItem::Fn(method) => methods.extend(Method::parse(method, &interface_name, &mut errors)),
                other => errors.add(&other, "an interface has methods only"),
            }
        }
        check_names(&methods, &mut errors);
        errors.into_result()?;
        Ok(Self { item, documentation, methods })
    }
}

/// Names that what is generated could not bear: the compiler would name code that the author never wrote.
fn check_names(methods: &[Method], errors: &mut Errors) {
    for (index, method) in methods.iter().enumerate() {
        let name = &method.wire_name;
        if methods[..index].iter().any(|other| other.wire_name == *name) {
            errors.at(
                method.name.span(),
                &format!(
                    "there are two methods `{name}`: callers name a method by this alone, so rename one"
                ),
            );
        }
        if CLIENT_METHODS.contains(&name.as_str()) || name.starts_with("__") {
            errors.at(
                method.name.span(),
                &format!("the name `{name}` is taken by what `#[interface]` generates: choose another name"),
            );
        }
    }
}

impl Method {
    fn parse(mut item: TraitItemFn, interface: &Ident, errors: &mut Errors) -> Option<Self> {
        let before = errors.count();
        let signature = &item.sig;
        errors.name(&signature.ident);
        if let Some(generic) = signature.generics.params.first() {
            errors.add(generic, "a method of an interface has no generic parameters: its arguments are decoded from bytes, so their types must be known");
        }
        if let Some(where_clause) = &signature.generics.where_clause {
            errors.add(where_clause, "a method of an interface has no `where` clause");
        }
        if let Some(body) = &item.default {
            errors
                .add(body, "a method of an interface has no body here: the extension that implements it has");
        }
        let parameters = parse_parameters(&item, errors);
        let result = parse_result(&item, errors);
        let Options { is_idempotent, is_pure, is_fast } = parse_options(&item.attrs, errors);
        if errors.count() != before {
            return None;
        }
        item.attrs.retain(|attribute| !attribute.path().is_ident("method"));
        for input in &mut item.sig.inputs {
            if let FnArg::Typed(input) = input {
                input.attrs.clear();
            }
        }
        Some(Self {
            name: item.sig.ident.clone(),
            message_name: format_ident!("__{interface}_{}_arguments", item.sig.ident.unraw()),
            wire_name: item.sig.ident.unraw().to_string(),
            documentation: documentation(&item.attrs),
            is_idempotent,
            is_pure,
            is_fast,
            is_async: item.sig.asyncness.is_some(),
            parameters,
            result: result?,
            item,
        })
    }
}

fn parse_parameters(item: &TraitItemFn, errors: &mut Errors) -> Vec<Parameter> {
    const SELF: &str = "a method of an interface takes `&self`: many calls use the same value at once; keep what changes in a `Mutex` or an atomic";
    let mut parameters = Vec::new();
    let mut inputs = item.sig.inputs.iter();
    match inputs.next() {
        Some(FnArg::Receiver(receiver)) => {
            if !matches!(receiver.kind, ReceiverKind::Reference(_, _, None)) {
                errors.add(receiver, SELF);
            }
        }
        Some(other) => errors.add(other, SELF),
        None => errors.at(item.sig.ident.span(), SELF),
    }
    let mut has_context = false;
    for input in inputs {
        let FnArg::Typed(input) = input else { continue };
        if is_context(&input.ty) {
            if std::mem::replace(&mut has_context, true) {
                errors.add(input, "a call has one context");
            }
            parameters.push(Parameter::Context);
            continue;
        }
        match &*input.ty {
            Type::ImplTrait(kind) => {
                errors.add(kind, "an argument has one known type: it is decoded from bytes");
            }
            kind if borrows(kind.to_token_stream()) => errors.add(kind, OWNED_ARGUMENT),
            _ => {}
        }
        match &*input.pat {
            Pat::Ident(pattern)
                if pattern.by_ref.is_none() && pattern.mutability.is_none() && pattern.subpat.is_none() =>
            {
                parameters.push(Parameter::Argument(Box::new(Argument {
                    name: pattern.ident.clone(),
                    kind: (*input.ty).clone(),
                    attributes: input.attrs.clone(),
                })));
            }
            pattern => errors.add(pattern, "an argument is a plain name: callers send it by that name"),
        }
    }
    parameters
}

fn parse_result(item: &TraitItemFn, errors: &mut Errors) -> Option<Type> {
    const RESULT: &str = "a method of an interface returns `Result<T, Fault>`, because a call can always fail, and its caller may be in another process: use `Result<(), Fault>` where there is nothing to return";
    let ReturnType::Type(_, kind) = &item.sig.output else {
        errors.at(item.sig.ident.span(), RESULT);
        return None;
    };
    if let Type::Path(path) = &**kind
        && let Some(last) = path.path.segments.last()
        && last.ident == "Result"
        && let PathArguments::AngleBracketed(arguments) = &last.arguments
        && arguments.args.len() == 2
        && let Some(GenericArgument::Type(result)) = arguments.args.first()
        && arguments.args.last().is_some_and(is_fault)
    {
        if borrows(result.to_token_stream()) {
            errors.add(
                result,
                "a result is an owned value, because it goes to another process: use `String` for `&str`, `Vec<T>` \
                 for `&[T]`",
            );
        }
        return Some(result.clone());
    }
    errors.add(kind, RESULT);
    None
}

/// Whether a type is `Fault`, by its last name: `extension_sdk::Fault` and `MyFault` are.
fn is_fault(argument: &GenericArgument) -> bool {
    matches!(argument, GenericArgument::Type(Type::Path(path))
        if path.path.segments.last().is_some_and(|last| last.ident.to_string().ends_with("Fault")))
}

/// Whether a type has a reference or a lifetime in it, at any depth.
fn borrows(kind: TokenStream) -> bool {
    kind.into_iter().any(|token| match token {
        TokenTree::Group(group) => borrows(group.stream()),
        TokenTree::Punct(punctuation) => matches!(punctuation.as_char(), '&' | '\''),
        TokenTree::Ident(_) | TokenTree::Literal(_) => false,
    })
}

#[derive(Default)]
struct Options {
    is_idempotent: bool,
    is_pure: bool,
    is_fast: bool,
}

/// `#[method(idempotent, pure, fast)]`.
fn parse_options(attributes: &[Attribute], errors: &mut Errors) -> Options {
    let mut options = Options::default();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("method")) {
        let parsed = attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("idempotent") {
                options.is_idempotent = true;
            } else if meta.path.is_ident("pure") {
                options.is_pure = true;
            } else if let Some(name) = meta.path.get_ident().filter(|name| *name == "fast") {
                fast::check_feature(name)?;
                options.is_fast = true;
            } else {
                return Err(meta.error("a method can be `idempotent`, `pure` and `fast`"));
            }
            Ok(())
        });
        if let Err(error) = parsed {
            errors.push(error);
        }
    }
    options
}

/// Whether a type is `&Context`, by its last name.
fn is_context(kind: &Type) -> bool {
    matches!(kind, Type::Reference(reference) if reference.mutability.is_none()
        && matches!(&*reference.elem, Type::Path(path)
            if path.path.segments.last().is_some_and(|last| last.ident == "Context")))
}

/// The text of the doc comments, without the space that follows the slashes.
fn documentation(attributes: &[Attribute]) -> String {
    let mut lines = Vec::new();
    for attribute in attributes {
        if let Meta::NameValue(meta) = &attribute.meta
            && meta.path.is_ident("doc")
            && let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = &meta.value
        {
            let text = text.value();
            lines.push(text.strip_prefix(' ').unwrap_or(&text).trim_end().to_owned());
        }
    }
    lines.join("\n").trim().to_owned()
}

/// Mistakes so far, to be reported together.
#[derive(Default)]
struct Errors(Vec<Error>);

impl Errors {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn add(&mut self, tokens: &impl quote::ToTokens, message: &str) {
        self.0.push(Error::new_spanned(tokens, message));
    }

    fn at(&mut self, span: Span, message: &str) {
        self.0.push(Error::new(span, message));
    }

    fn push(&mut self, error: Error) {
        self.0.push(error);
    }

    fn name(&mut self, name: &Ident) {
        if name.unraw().to_string().len() > NAME_BYTES_MAX {
            self.at(name.span(), &format!("a name on the bus has at most {NAME_BYTES_MAX} bytes"));
        }
    }

    fn into_result(self) -> Result<()> {
        match self.0.into_iter().reduce(|mut all, error| {
            all.combine(error);
            all
        }) {
            Some(errors) => Err(errors),
            None => Ok(()),
        }
    }
}
