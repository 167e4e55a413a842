//! The trait itself, as implementers see it, with the method table hidden in it.
//!
//! The table stands in the trait and not beside it, so that whoever has the trait in scope has it too.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{ReturnType, parse_quote};

use crate::dispatch;
use crate::model::Interface;

pub(crate) fn generate(interface: &Interface) -> TokenStream {
    let mut item = interface.item.clone();
    item.supertraits.push(parse_quote!(::core::marker::Send));
    item.supertraits.push(parse_quote!(::core::marker::Sync));
    item.supertraits.push(parse_quote!('static));
    let attributes = &item.attrs;
    let visibility = &item.vis;
    let name = &item.ident;
    let supertraits = &item.supertraits;
    let methods = interface.methods.iter().map(|method| {
        let mut item = method.item.clone();
        if method.is_async {
            // Implementers write `async fn`; the future is `Send`, so that a tier may run it where it likes.
            item.sig.asyncness = None;
            if let ReturnType::Type(_, kind) = &method.item.sig.output {
                item.sig.output = syn::parse_quote_spanned! { kind.span() =>
                    -> impl ::core::future::Future<Output = #kind> + ::core::marker::Send
                };
            }
        }
        quote_spanned! { method.name.span() => #item }
    });
    let table = dispatch::generate(interface);
    let messages = dispatch::messages(interface);
    quote! {
        #messages

        #(#attributes)*
        #visibility trait #name: #supertraits {
            #(#methods)*
            #table
        }
    }
}
