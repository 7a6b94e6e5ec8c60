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
