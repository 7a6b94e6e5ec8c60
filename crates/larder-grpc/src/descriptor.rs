//! What a descriptor set says of methods and messages.

use larder_core::Result;
use prost_reflect::prost_types::method_options::IdempotencyLevel;
use prost_reflect::{
    DescriptorPool, DynamicMessage, MapKey, MessageDescriptor, MethodDescriptor, Value,
};

use crate::methods::{Read, Write, check as check_name, wrong};

/// The descriptors of these sets; `None` when there are none.
pub(crate) fn pool(sets: &[Vec<u8>]) -> Result<Option<DescriptorPool>> {
    let mut pool = DescriptorPool::new();
    for encoded in sets {
        pool.decode_file_descriptor_set(&encoded[..]).map_err(|error| {
            wrong(format!(
                "the descriptor set cannot be read: {error}; make it with --include_imports"
            ))
        })?;
    }
    Ok((!sets.is_empty()).then_some(pool))
}

fn methods(pool: &DescriptorPool) -> impl Iterator<Item = (String, MethodDescriptor)> + '_ {
    pool.services().flat_map(|service| {
        let named = |method: MethodDescriptor| {
            (format!("/{}/{}", method.parent_service().full_name(), method.name()), method)
        };
        service.methods().map(named).collect::<Vec<_>>()
    })
}

fn find(pool: &DescriptorPool, name: &str) -> Option<MethodDescriptor> {
    methods(pool).find(|(known, _)| known == name).map(|(_, method)| method)
}

fn is_free_of_side_effects(method: &MethodDescriptor) -> bool {
    let options = method.method_descriptor_proto().options.as_ref();
    options.is_some_and(|options| options.idempotency_level() == IdempotencyLevel::NoSideEffects)
}

fn is_unary(method: &MethodDescriptor) -> bool {
    !method.is_client_streaming() && !method.is_server_streaming()
}

/// The unary methods with `idempotency_level = NO_SIDE_EFFECTS`.
pub(crate) fn without_side_effects(pool: &DescriptorPool) -> impl Iterator<Item = String> + '_ {
    methods(pool)
        .filter(|(_, method)| is_free_of_side_effects(method) && is_unary(method))
        .map(|(name, _)| name)
}

/// Checks what was declared by name.
pub(crate) fn check(pool: &DescriptorPool, reads: &[Read], writes: &[Write]) -> Result<()> {
    let known = |name: &str| {
        check_name(name)?;
        find(pool, name).ok_or_else(|| {
            let names: Vec<String> = methods(pool).map(|(name, _)| name).collect();
            wrong(format!("{name} is not in the descriptor set, which has {}", names.join(", ")))
        })
    };
    for read in reads {
        if !is_unary(&known(&read.method)?) {
            let words = "is a streaming method, and only unary ones are cached";
            return Err(wrong(format!("{} {words}", read.method)));
        }
    }
    for write in writes {
        if is_free_of_side_effects(&known(&write.method)?) {
            let words = "is declared as a write, and its idempotency_level says NO_SIDE_EFFECTS";
            return Err(wrong(format!("{} {words}", write.method)));
        }
    }
    Ok(())
}

/// What a method's messages are.
pub(crate) fn input(pool: &DescriptorPool, method: &str) -> Option<MessageDescriptor> {
    find(pool, method).map(|method| method.input())
}

/// The same bytes for messages that mean the same: known fields by their numbers, maps by their keys. `None` when it does
/// not decode.
pub(crate) fn canonical(input: &MessageDescriptor, payload: &[u8]) -> Option<Vec<u8>> {
    let message = DynamicMessage::decode(input.clone(), payload).ok()?;
    let mut out = Vec::with_capacity(payload.len() + 16);
    put_message(&mut out, &message);
    Some(out)
}

// Each value has its kind before it and, where that has no fixed length, its length: what differs is written
// differently.
fn put_message(out: &mut Vec<u8>, message: &DynamicMessage) {
    let mut fields: Vec<(u32, &Value)> =
        message.fields().map(|(field, value)| (field.number(), value)).collect();
    fields.extend(message.extensions().map(|(field, value)| (field.number(), value)));
    fields.sort_unstable_by_key(|(number, _)| *number);
    put_count(out, fields.len());
    for (number, value) in fields {
        out.extend_from_slice(&number.to_be_bytes());
        put_value(out, value);
    }
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Bool(value) => put(out, 0, &[u8::from(*value)]),
        Value::I32(value) => put(out, 1, &value.to_be_bytes()),
        Value::I64(value) => put(out, 2, &value.to_be_bytes()),
        Value::U32(value) => put(out, 3, &value.to_be_bytes()),
        Value::U64(value) => put(out, 4, &value.to_be_bytes()),
        Value::F32(value) => put(out, 5, &value.to_bits().to_be_bytes()),
        Value::F64(value) => put(out, 6, &value.to_bits().to_be_bytes()),
        Value::EnumNumber(value) => put(out, 7, &value.to_be_bytes()),
        Value::String(value) => put_long(out, 8, value.as_bytes()),
        Value::Bytes(value) => put_long(out, 9, value),
        Value::Message(message) => {
            out.push(10);
            put_message(out, message);
        }
        Value::List(values) => {
            out.push(11);
            put_count(out, values.len());
            values.iter().for_each(|value| put_value(out, value));
        }
        Value::Map(map) => {
            out.push(12);
            put_count(out, map.len());
            let mut entries: Vec<(&MapKey, &Value)> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            for (key, value) in entries {
                put_value(out, &Value::from(key.clone()));
                put_value(out, value);
            }
        }
    }
}

fn put(out: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    out.push(kind);
    out.extend_from_slice(bytes);
}

fn put_long(out: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    out.push(kind);
    put_count(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&(count as u64).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use larder_cache::Cache;
    use prost_reflect::prost::Message;
    use prost_reflect::prost_types::field_descriptor_proto::{Label, Type};
    use prost_reflect::prost_types::{
        DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
        MessageOptions, MethodDescriptorProto, MethodOptions, ServiceDescriptorProto,
    };

    use super::*;
    use crate::{GrpcCacheBuilder, GrpcCacheLayer};

    fn field(name: &str, number: i32, label: Label, kind: Type) -> FieldDescriptorProto {
        FieldDescriptorProto {
            name: Some(name.into()),
            number: Some(number),
            label: Some(label.into()),
            r#type: Some(kind.into()),
            type_name: (kind == Type::Message).then(|| ".shop.Asked.NotesEntry".into()),
            ..Default::default()
        }
    }

    fn method(name: &str, level: IdempotencyLevel, streams: bool) -> MethodDescriptorProto {
        MethodDescriptorProto {
            name: Some(name.into()),
            input_type: Some(".shop.Asked".into()),
            output_type: Some(".shop.Asked".into()),
            options: Some(MethodOptions {
                idempotency_level: Some(level.into()),
                ..Default::default()
            }),
            server_streaming: Some(streams),
            ..Default::default()
        }
    }

    /// `message Asked { uint32 id = 1; string name = 2; repeated int32 sizes = 3; map<string, string> notes = 4; }`
    fn set() -> Vec<u8> {
        let text = |name, number| field(name, number, Label::Optional, Type::String);
        let entry = DescriptorProto {
            name: Some("NotesEntry".into()),
            field: vec![text("key", 1), text("value", 2)],
            options: Some(MessageOptions { map_entry: Some(true), ..Default::default() }),
            ..Default::default()
        };
        let asked = DescriptorProto {
            name: Some("Asked".into()),
            field: vec![
                field("id", 1, Label::Optional, Type::Uint32),
                text("name", 2),
                field("sizes", 3, Label::Repeated, Type::Int32),
                field("notes", 4, Label::Repeated, Type::Message),
            ],
            nested_type: vec![entry],
            ..Default::default()
        };
        let service = ServiceDescriptorProto {
            name: Some("Shop".into()),
            method: vec![
                method("Get", IdempotencyLevel::NoSideEffects, false),
                method("Put", IdempotencyLevel::Idempotent, false),
                method("Buy", IdempotencyLevel::IdempotencyUnknown, false),
                method("Watch", IdempotencyLevel::NoSideEffects, true),
            ],
            ..Default::default()
        };
        let file = FileDescriptorProto {
            name: Some("shop.proto".into()),
            package: Some("shop".into()),
            message_type: vec![asked],
            service: vec![service],
            syntax: Some("proto3".into()),
            ..Default::default()
        };
        FileDescriptorSet { file: vec![file] }.encode_to_vec()
    }

    fn builder() -> GrpcCacheBuilder {
        GrpcCacheLayer::builder(&Cache::memory()).descriptor_set(set())
    }

    fn reads(layer: &GrpcCacheLayer) -> Vec<&str> {
        let mut names: Vec<&str> = layer.0.config.reads.keys().map(|name| &**name).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn b10_only_unary_methods_without_side_effects_are_taken_from_a_descriptor_set() {
        assert_eq!(reads(&builder().build().unwrap()), ["/shop.Shop/Get"]);
        let more = builder().read("/shop.Shop/Get").read("/shop.Shop/Buy").build().unwrap();
        assert_eq!(reads(&more), ["/shop.Shop/Buy", "/shop.Shop/Get"]);
    }

    #[test]
    fn what_contradicts_the_descriptor_set_fails_while_configuring() {
        let words = |builder: GrpcCacheBuilder| builder.build().unwrap_err().to_string();
        let unknown = words(builder().read("/shop.Shop/Gett"));
        assert!(
            unknown.contains("/shop.Shop/Gett is not in") && unknown.contains("/shop.Shop/Get,")
        );
        assert!(words(builder().read("/shop.Shop/Watch")).contains("streaming"));
        assert!(words(builder().write(Write::new("/shop.Shop/Get"))).contains("NO_SIDE_EFFECTS"));
        assert!(words(builder().write(Write::new("/shop.Shop/Sell"))).contains("is not in"));
        assert!(words(builder().descriptor_set(b"\xff\xff".to_vec())).contains("cannot be read"));
        let without = GrpcCacheLayer::builder(&Cache::memory()).read("/a.B/C").canonical();
        assert!(words(without).contains("descriptor_set"));
    }

    fn same(a: &[u8], b: &[u8]) -> bool {
        let pool = pool(&[set()]).unwrap().unwrap();
        let asked = input(&pool, "/shop.Shop/Get").unwrap();
        let (a, b) = (canonical(&asked, a), canonical(&asked, b));
        assert!(a.is_some() && b.is_some());
        a == b
    }

    #[test]
    fn b11_messages_that_mean_the_same_are_the_same() {
        // The order of fields, fields that are unknown, defaults that are written out, earlier values of a field.
        let plain = b"\x08\x07\x12\x01a";
        assert!(same(plain, b"\x12\x01a\x08\x07"));
        assert!(same(plain, b"\x08\x07\x12\x01a\x7a\x01x"));
        assert!(same(plain, b"\x08\x01\x08\x07\x12\x01a"));
        assert!(same(b"", b"\x08\x00\x12\x00"));
        // Packed or not, and maps in any order.
        assert!(same(b"\x18\x01\x18\x02", b"\x1a\x02\x01\x02"));
        let (one, two) = (b"\x22\x06\x0a\x01a\x12\x01x", b"\x22\x06\x0a\x01b\x12\x01y");
        for _ in 0..20 {
            assert!(same(&[&one[..], two].concat(), &[&two[..], one].concat()));
        }
        // And what differs is not.
        assert!(!same(plain, b"\x08\x08\x12\x01a"));
        assert!(!same(plain, b"\x08\x07"));
        assert!(!same(b"\x18\x01\x18\x02", b"\x18\x02\x18\x01"));
        assert!(!same(one, two));
    }

    #[test]
    fn what_does_not_decode_has_no_canonical_form() {
        let pool = pool(&[set()]).unwrap().unwrap();
        let asked = input(&pool, "/shop.Shop/Get").unwrap();
        for bad in [&b"\x08"[..], b"\x12\xff\xff\xff\xff\x0f", b"\x12\x01\xff", b"\xff"] {
            assert_eq!(canonical(&asked, bad), None, "{}", bad.escape_ascii());
        }
    }
}
