//! The typed client of an interface.

use proc_macro2::TokenStream;
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::spanned::Spanned;

use crate::model::{Interface, Method};

pub(crate) fn generate(interface: &Interface) -> TokenStream {
    let visibility = &interface.item.vis;
    let trait_name = &interface.item.ident;
    let name = format_ident!("{trait_name}Client");
    let documentation = format!(
        "Calls a [`{trait_name}`], whatever lies between. Cloning it is cheap.\n\n\
         A call is under way as soon as its method returns; the future that it returns waits for the answer, \
         and dropping that future cancels the call."
    );
    let methods = interface.methods.iter().map(|method| client_method(method, visibility));
    quote! {
        #[doc = #documentation]
        #[derive(Clone, Debug)]
        #[allow(dead_code, reason = "an extension that defines its own interface need not call itself")]
        #visibility struct #name(::extension_sdk::Client);

        #[allow(dead_code, reason = "an extension that defines its own interface need not call itself")]
        impl #name {
            /// A client that calls through `caller`, with the default time limit for every call.
            #visibility fn new(caller: impl ::extension_sdk::Caller + 'static) -> Self {
                Self(::extension_sdk::Client::new(caller))
            }

            /// The same client with another time limit for every call that it makes.
            #[must_use]
            #visibility fn with_timeout(self, timeout: ::std::time::Duration) -> Self {
                Self(self.0.with_timeout(timeout))
            }

            #(#methods)*
        }
    }
}

fn client_method(method: &Method, visibility: &syn::Visibility) -> TokenStream {
    let name = &method.name;
    let wire_name = &method.wire_name;
    let documentation = method.item.attrs.iter().filter(|attribute| attribute.path().is_ident("doc"));
    let result = &method.result;
    let parameters = method.arguments().map(|argument| {
        let (name, kind) = (&argument.name, &argument.kind);
        quote!(#name: #kind)
    });
    let arguments = match method.whole_body() {
        Some(argument) => {
            let name = &argument.name;
            quote!(#name)
        }
        None => {
            let names = method.arguments().map(|argument| &argument.name);
            let message = &method.message_name;
            quote!(#message { #(#names),* })
        }
    };
    let span = method.whole_body().map_or_else(|| result.span(), |argument| argument.kind.span());
    let call = if method.is_fast {
        let arguments_type = method.whole_body().map_or_else(
            || method.message_name.to_token_stream(),
            |argument| argument.kind.to_token_stream(),
        );
        quote_spanned! { span => {
            static SCHEMA_HASH: ::std::sync::OnceLock<u64> = ::std::sync::OnceLock::new();
            let hash = ::extension_sdk::__private::fast_hash::<#arguments_type, #result>;
            self.0.call_fast::<_, #result>(#wire_name, *SCHEMA_HASH.get_or_init(hash), #arguments)
        } }
    } else {
        quote_spanned!(span => self.0.call::<_, #result>(#wire_name, #arguments))
    };
    quote! {
        #(#documentation)*
        #visibility fn #name(&self, #(#parameters),*) -> ::extension_sdk::Call<#result> {
            #call
        }
    }
}
