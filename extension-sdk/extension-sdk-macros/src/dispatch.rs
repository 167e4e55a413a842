//! The method table: for every method its name, its schemas, and how to run it on encoded arguments; and the
//! structs that hold these arguments, which the client shares.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;

use crate::model::{Interface, Method, Parameter};
use crate::{fast, message};

/// A hidden function of the trait that gives the table.
pub(crate) fn generate(interface: &Interface) -> TokenStream {
    let name = interface.item.ident.to_string();
    let documentation = &interface.documentation;
    let trait_name = &interface.item.ident;
    let methods = interface.methods.iter().map(|method| entry(trait_name, method));
    quote! {
        #[doc(hidden)]
        fn __interface() -> ::extension_sdk::__private::Interface<Self>
        where
            Self: ::core::marker::Sized,
        {
            ::extension_sdk::__private::Interface {
                name: #name,
                documentation: #documentation,
                methods: ::std::vec![#(#methods),*],
            }
        }
    }
}

fn entry(trait_name: &syn::Ident, method: &Method) -> TokenStream {
    let name = &method.name;
    let wire_name = &method.wire_name;
    let documentation = &method.documentation;
    let (is_idempotent, is_pure, is_async) = (method.is_idempotent, method.is_pure, method.is_async);
    let result = &method.result;
    let (arguments_type, arguments_span) = match method.whole_body() {
        Some(argument) => (argument.kind.to_token_stream(), argument.kind.span()),
        None => (method.message_name.to_token_stream(), method.name.span()),
    };
    let passed = method.parameters.iter().map(|parameter| match parameter {
        Parameter::Context => quote!(cx),
        Parameter::Argument(_) if method.whole_body().is_some() => quote!(arguments),
        Parameter::Argument(argument) => {
            let name = &argument.name;
            quote!(arguments.#name)
        }
    });
    let call = quote_spanned!(method.item.sig.output.span() =>
        <Self as #trait_name>::#name(extension, #(#passed),*)
    );
    let call = if is_async { quote!(::extension_sdk::__private::block_on(#call)) } else { call };
    // What the types lack is reported at the types.
    let decode = quote_spanned!(arguments_span =>
        ::extension_sdk::__private::decode_arguments::<#arguments_type>(body)?
    );
    let encode = quote_spanned!(result.span() =>
        ::extension_sdk::__private::encode_result::<#result>(&result?, out)
    );
    let (schemas, fast) = if method.is_fast {
        let decode = quote_spanned!(arguments_span =>
            ::extension_sdk::__private::decode_fast_arguments::<#arguments_type>(body)?
        );
        let encode = quote_spanned!(result.span() =>
            ::extension_sdk::__private::encode_fast_result::<#result>(&result?, bytes_max, out)
        );
        let run = quote! {
            |extension, cx, body, bytes_max, out| {
                let arguments = #decode;
                let _ = &arguments;
                let result: ::core::result::Result<#result, ::extension_sdk::Fault> = #call;
                #encode
            }
        };
        (quote!(fast_schemas), quote!(::core::option::Option::Some(#run)))
    } else {
        (quote!(schemas), quote!(::core::option::Option::None))
    };
    let schemas = quote!(::extension_sdk::__private::#schemas::<#arguments_type, #result>);
    quote! {
        ::extension_sdk::__private::Method::<Self> {
            name: #wire_name,
            documentation: #documentation,
            is_idempotent: #is_idempotent,
            is_pure: #is_pure,
            is_async: #is_async,
            schemas: #schemas,
            run: |extension, cx, body, out| {
                let arguments = #decode;
                let _ = &arguments;
                let result: ::core::result::Result<#result, ::extension_sdk::Fault> = #call;
                #encode
            },
            fast: #fast,
        }
    }
}

/// For each method the struct that holds its arguments, unless one argument is all of them.
pub(crate) fn messages(interface: &Interface) -> TokenStream {
    let methods = interface.methods.iter().filter(|method| method.whole_body().is_none());
    let messages = methods.map(|method| {
        let name = &method.message_name;
        let title = format!("Arguments of `{}`.", method.wire_name);
        let fields = method.arguments().map(|argument| {
            let (attributes, name, kind) = (&argument.attributes, &argument.name, &argument.kind);
            quote!(#(#attributes)* #name: #kind)
        });
        let parts = method.arguments().map(|argument| (&argument.kind, &*argument.attributes));
        let checks = message::checks(&method.item.sig.generics, parts);
        let fast = method.is_fast.then(fast::derives);
        quote! {
            #checks

            #[doc = #title]
            #fast
            #[allow(non_camel_case_types, reason = "made of the interface's and the method's name")]
            #[derive(
                ::extension_sdk::__private::serde::Serialize,
                ::extension_sdk::__private::serde::Deserialize,
                ::extension_sdk::__private::schemars::JsonSchema,
            )]
            #[serde(crate = "::extension_sdk::__private::serde")]
            #[schemars(crate = "::extension_sdk::__private::schemars")]
            struct #name { #(#fields),* }
        }
    });
    quote!(#(#messages)*)
}
