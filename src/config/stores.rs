//! `stores:`, where stores are and how to log in to them. Only the shape is read here: what a store needs it says itself.

use serde_json::{Value as Json, json};

use super::Text;
use super::read::{Scalar, mapping};
use super::rotation::Url;
use crate::reference::Scheme;
use crate::store;

mapping! {
    /// A store: where it is, and how to log in.
    pub struct Store {
        /// The kind of store, when the name is another.
        pub r#type: Option<Kind>,
        /// Its address.
        pub address: Option<Url>,
        /// The namespace of Vault or OpenBao, or of Kubernetes.
        pub namespace: Option<Text>,
        /// The region of a cloud.
        pub region: Option<Text>,
        /// A file with the certificates of the authorities that the store's own may come from.
        pub ca_file: Option<AbsolutePath>,
        /// How to log in.
        pub auth: Option<Auth>,
    }
}

impl Store {
    /// What kind of store it is, by its type or by its name.
    #[must_use]
    pub fn kind(&self, name: &str) -> Option<Kind> {
        self.r#type.clone().or_else(|| Kind::parse(name))
    }

    /// Whether the name says another kind than the type: references of that kind would pass it by.
    #[must_use]
    pub fn is_of_another_kind(&self, name: &str) -> bool {
        Kind::parse(name).is_some_and(|own| self.r#type.as_ref().is_some_and(|kind| *kind != own))
    }

    /// As stores are made from it; `place` is where it stands. None when its kind is not known, which has been told.
    #[must_use]
    pub fn instance(&self, name: &str, place: String) -> Option<store::Instance> {
        let Kind(kind) = self.kind(name)?;
        Some(store::Instance {
            name: name.to_owned(),
            scheme: Scheme::all().find(|scheme| scheme.word() == kind)?,
            place,
            address: self.address.as_ref().map(|Url(url)| url.clone()),
            namespace: text(self.namespace.as_ref()),
            region: text(self.region.as_ref()),
            ca_file: path(self.ca_file.as_ref()),
            auth: self.auth.as_ref().map(Auth::settings),
        })
    }
}

mapping! {
    /// How to log in. What is secret stands in a file, never here.
    pub struct Auth {
        /// The method of logging in.
        pub method: Method,
        /// Where the method is mounted, in place of its own name.
        pub mount: Option<Text>,
        /// The role to log in with.
        pub role: Option<Text>,
        /// The name of the user, for userpass.
        pub username: Option<Text>,
        /// The file with the token, for token.
        pub token_file: Option<AbsolutePath>,
        /// The file with the identity, for jwt and kubernetes.
        pub jwt_file: Option<AbsolutePath>,
        /// The role's id, for approle.
        pub role_id: Option<Text>,
        /// The file with the secret id, for approle.
        pub secret_id_file: Option<AbsolutePath>,
        /// The file with the password, for userpass.
        pub password_file: Option<AbsolutePath>,
        /// The file with the certificate, for cert.
        pub cert_file: Option<AbsolutePath>,
        /// The file with the certificate's key, for cert.
        pub key_file: Option<AbsolutePath>,
        /// The path that the token or the secret id was wrapped by, when what the file holds is the wrapping token: it is unwrapped when its path is this one.
        pub creation_path: Option<Text>,
    }
}

impl Auth {
    fn settings(&self) -> store::Auth {
        store::Auth {
            method: self.method.0.clone(),
            mount: text(self.mount.as_ref()),
            role: text(self.role.as_ref()),
            username: text(self.username.as_ref()),
            token_file: path(self.token_file.as_ref()),
            jwt_file: path(self.jwt_file.as_ref()),
            role_id: text(self.role_id.as_ref()),
            secret_id_file: path(self.secret_id_file.as_ref()),
            password_file: path(self.password_file.as_ref()),
            cert_file: path(self.cert_file.as_ref()),
            key_file: path(self.key_file.as_ref()),
            creation_path: text(self.creation_path.as_ref()),
        }
    }
}

fn text(text: Option<&Text>) -> Option<String> {
    text.map(|Text(text)| text.clone())
}

fn path(path: Option<&AbsolutePath>) -> Option<String> {
    path.map(|AbsolutePath(path)| path.clone())
}

/// Makes a type of one of several words, with what is expected and the schema from the same list.
macro_rules! one_of {
    ($(#[doc = $about:literal])+ $name:ident, $what:literal: $first:literal, $($more:literal),+) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name(pub String);

        impl $name {
            const WORDS: &[&str] = &[$first, $($more),+];
        }

        impl Scalar for $name {
            const EXPECTED: &'static str = concat!($what, ": one of ", $first, $(", ", $more),+);

            fn parse(text: &str) -> Option<Self> {
                Self::WORDS.contains(&text).then(|| Self(text.to_owned()))
            }

            fn schema() -> Json {
                json!({ "enum": Self::WORDS })
            }
        }
    };
}

one_of! {
    /// The kind of a store that can be set up.
    Kind, "a kind of store": "vault", "bao", "aws-sm", "aws-ssm", "gcp-sm", "azure-kv", "k8s", "pass"
}

one_of! {
    /// How to log in to Vault and `OpenBao`.
    Method, "a method": "token", "kubernetes", "approle", "jwt", "userpass", "cert"
}

/// The path of a file that is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AbsolutePath(pub String);

impl Scalar for AbsolutePath {
    const EXPECTED: &'static str = "an absolute path";

    fn parse(text: &str) -> Option<Self> {
        (text.starts_with('/') && !text.contains('\0')).then(|| Self(text.to_owned()))
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^/" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_store_is_the_scheme_of_a_reference() {
        assert!(Kind::WORDS.iter().all(|word| Scheme::all().any(|scheme| scheme.word() == *word)));
    }
}
