//! What a message of the fast codec has besides: derives, the layout's text and the walk; and what it may not have.
//!
//! Names do not travel in that codec, and every part does: whatever serde is told to leave out or to send as
//! something else would be another value at the other end.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::meta::ParseNestedMeta;
use syn::spanned::Spanned;
use syn::{Attribute, Data, DeriveInput, Error, Expr, Field, Fields, Ident, Result, Token, Type};

use crate::message::mentions;

/// Options of serde that change names, errors or what may be missing in MessagePack, and not the value.
const HARMLESS: [&str; 12] = [
    "alias",
    "bound",
    "content",
    "crate",
    "default",
    "deny_unknown_fields",
    "expecting",
    "rename",
    "rename_all",
    "rename_all_fields",
    "tag",
    "transparent",
];

/// Whether the SDK is built with the codec.
pub(crate) fn check_feature(option: &Ident) -> Result<()> {
    if cfg!(feature = "fast") {
        return Ok(());
    }
    let help = "`fast` needs the feature of this name: write `extension-sdk = { ..., features = [\"fast\"] }` in Cargo.toml";
    Err(Error::new(option.span(), help))
}

/// The derives of a fast message, and what they need.
pub(crate) fn derives() -> TokenStream {
    quote! {
        #[derive(
            ::extension_sdk::__private::FastMessage,
            ::extension_sdk::__private::codec::wincode::SchemaWrite,
            ::extension_sdk::__private::codec::wincode::SchemaRead,
        )]
        #[wincode(crate = "::extension_sdk::__private::codec::wincode")]
    }
}

pub(crate) fn expand(item: TokenStream) -> Result<TokenStream> {
    let item: DeriveInput = syn::parse2(item)?;
    check(&item)?;
    let name = &item.ident;
    let codec = quote!(::extension_sdk::__private::codec);
    let parts = match &item.data {
        Data::Struct(item) => Parts::of(&item.fields),
        Data::Enum(item) => Parts::of_variants(item.variants.iter().map(|one| (&one.ident, &one.fields))),
        Data::Union(item) => return Err(Error::new(item.union_token.span(), "a message is no union")),
    };
    let Parts { layout, walk, fixed } = parts;
    let is_empty = matches!(&item.data, Data::Struct(item) if item.fields.is_empty());
    let (kind, fixed) = if is_empty {
        (quote!(FastBody), TokenStream::new())
    } else {
        let depths = fields(&item.data).map(fast).map(|part| quote!(#part::DEPTH));
        // Where a circle of messages is reported.
        let depth = quote_spanned!(name.span() =>
            const DEPTH: usize = ::extension_sdk::__private::codec::depth_above(&[#(#depths),*]);
        );
        (quote!(Fast), quote!(#depth const FIXED: ::core::option::Option<usize> = #fixed;))
    };
    Ok(quote! {
        #[automatically_derived]
        impl #codec::#kind for #name {
            #fixed

            fn layout(out: &mut ::std::string::String) {
                #layout
            }

            fn walk(walk: &mut #codec::Walk<'_>) -> ::core::result::Result<(), #codec::WalkError> {
                #walk
                ::core::result::Result::Ok(())
            }
        }
    })
}

/// All fields, those of all variants.
fn fields(data: &Data) -> impl Iterator<Item = &Field> {
    let fields: Vec<&Fields> = match data {
        Data::Struct(data) => vec![&data.fields],
        Data::Enum(data) => data.variants.iter().map(|variant| &variant.fields).collect(),
        Data::Union(_) => Vec::new(),
    };
    fields.into_iter().flatten()
}

/// Everything that is wrong, at once.
fn check(item: &DeriveInput) -> Result<()> {
    let mut errors = Vec::new();
    if let Some(generic) = item.generics.params.first() {
        errors.push(Error::new_spanned(
            generic,
            "a fast message has no parameters: its layout is known where it stands",
        ));
    }
    errors.extend(item.attrs.iter().flat_map(refused_options));
    let mut check_fields = |fields: &Fields| {
        for field in fields {
            errors.extend(field.attrs.iter().flat_map(refused_options));
            errors.extend(field.attrs.iter().filter_map(refused_wincode));
            if mentions(field.ty.to_token_stream(), &["Self", &item.ident.to_string()]) {
                errors.push(Error::new_spanned(
                    &field.ty,
                    "a fast message cannot contain itself: leave `fast` away, and it travels as MessagePack",
                ));
            }
        }
    };
    match &item.data {
        Data::Struct(data) => check_fields(&data.fields),
        Data::Enum(data) => {
            data.variants.iter().for_each(|variant| check_fields(&variant.fields));
            for variant in &data.variants {
                errors.extend(variant.attrs.iter().flat_map(refused_options));
                errors.extend(variant.attrs.iter().filter_map(refused_wincode));
            }
        }
        Data::Union(_) => {}
    }
    match errors.into_iter().reduce(|mut all, error| {
        all.combine(error);
        all
    }) {
        Some(errors) => Err(errors),
        None => Ok(()),
    }
}

/// What an attribute of serde says that contradicts the codec.
fn refused_options(attribute: &Attribute) -> Vec<Error> {
    let mut errors = Vec::new();
    if !attribute.path().is_ident("serde") {
        return errors;
    }
    let parsed = attribute.parse_nested_meta(|meta| {
        if !HARMLESS.iter().any(|harmless| meta.path.is_ident(harmless)) {
            let option = meta.path.to_token_stream();
            let help = format!(
                "a fast message has no `{option}`: the fast codec sends every part as it is, in its order; leave \
                 `fast` away, and the message travels as MessagePack"
            );
            errors.push(Error::new_spanned(&meta.path, help));
        }
        pass_value(&meta)
    });
    errors.extend(parsed.err());
    errors
}

fn pass_value(meta: &ParseNestedMeta<'_>) -> Result<()> {
    if meta.input.peek(Token![=]) {
        meta.value()?.parse::<Expr>()?;
    } else if meta.input.peek(syn::token::Paren) {
        let inside;
        syn::parenthesized!(inside in meta.input);
        inside.parse::<TokenStream>()?;
    }
    Ok(())
}

fn refused_wincode(attribute: &Attribute) -> Option<Error> {
    attribute.path().is_ident("wincode").then(|| {
        Error::new_spanned(
            attribute,
            "the layout of a fast message is that of its declaration, without options",
        )
    })
}

/// What is generated for parts that follow one another.
struct Parts {
    layout: TokenStream,
    walk: TokenStream,
    /// An expression of the type `Option<usize>`.
    fixed: TokenStream,
}

impl Parts {
    fn of(fields: &Fields) -> Self {
        let is_named = matches!(fields, Fields::Named(_));
        let (open, close) = if is_named { ("{", "}") } else { ("(", ")") };
        let layouts = fields.iter().map(|field| {
            let name = field.ident.as_ref().map(|name| format!("{}:", name.unraw()));
            let name = name.map(|name| quote!(out.push_str(#name);));
            let part = fast(field);
            quote!(#name #part::layout(out); out.push(',');)
        });
        let walks = fields.iter().map(fast).map(|part| quote!(#part::walk(walk)?;));
        let sizes = fields.iter().map(fast).map(|part| quote!(#part::FIXED));
        Self {
            layout: quote!(out.push_str(#open); #(#layouts)* out.push_str(#close);),
            walk: quote!(let _ = &walk; #(#walks)*),
            fixed: quote!(::extension_sdk::__private::codec::fixed_sum(&[#(#sizes),*])),
        }
    }

    fn of_variants<'a>(variants: impl Iterator<Item = (&'a Ident, &'a Fields)> + Clone) -> Self {
        let layouts = variants.clone().map(|(name, fields)| {
            let name = name.unraw().to_string();
            let fields = (!fields.is_empty()).then(|| Self::of(fields).layout);
            quote!(out.push_str(#name); #fields out.push(',');)
        });
        let walks = variants.clone().zip(0_u32..).map(|((_, fields), index)| {
            let Self { walk, .. } = Self::of(fields);
            quote!(#index => { #walk })
        });
        // The number of the variant alone, if no variant has more.
        let fixed = if variants.clone().all(|(_, fields)| fields.is_empty()) {
            quote!(::core::option::Option::Some(4))
        } else {
            quote!(::core::option::Option::None)
        };
        Self {
            layout: quote!(out.push('<'); #(#layouts)* out.push('>');),
            walk: quote! {
                match walk.variant()? {
                    #(#walks)*
                    tag => return ::core::result::Result::Err(walk.no_variant(tag)),
                }
            },
            fixed,
        }
    }
}

/// A field's type as what it must be, so that the error stands at the field.
fn fast(field: &Field) -> TokenStream {
    let kind: &Type = &field.ty;
    quote_spanned!(kind.span() => <#kind as ::extension_sdk::__private::codec::Fast>)
}
