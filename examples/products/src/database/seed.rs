//! Plausible products, the same ones every time.

use rusqlite::{Connection, params};

struct Category {
    name: &'static str,
    /// What it sells, and for about how many cents.
    things: [(&'static str, i64); 10],
    materials: [&'static str; 6],
    sentence: &'static str,
}

/// Fills an empty database.
pub(super) fn fill(connection: &Connection, products: u32) -> rusqlite::Result<()> {
    let mut dice = Dice(0x1A7D_E700);
    let categories: Vec<(i64, &Category)> = (1..).zip(&CATEGORIES).collect();
    for (at, category) in &categories {
        connection.execute(
            "INSERT INTO categories (id, name) VALUES (?1, ?2)",
            params![at, category.name],
        )?;
    }
    let mut product = connection.prepare(
        "INSERT INTO products (id, category_id, name, description, price_cents, stock, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, strftime('%Y-%m-%dT%H:%M:%SZ', ?7, 'unixepoch'))",
    )?;
    let mut review = connection.prepare(
        "INSERT INTO reviews (product_id, stars, text, created_at)
         VALUES (?1, ?2, ?3, strftime('%Y-%m-%dT%H:%M:%SZ', ?4, 'unixepoch'))",
    )?;
    for id in 1..=products {
        // One after the other, some hours apart.
        let created = START + i64::from(id) * 10_000 + dice.below(9_000);
        let (at, category) = *dice.pick(&categories);
        let (thing, cents) = *dice.pick(&category.things);
        let material = *dice.pick(&category.materials);
        let name = format!("{} {material} {thing}", dice.pick(&STYLES));
        let description = format!(
            "{} {} {}",
            category.sentence,
            dice.pick(&MAKERS).replace("{material}", &material.to_lowercase()),
            dice.pick(&CARES),
        );
        // Half to twice the usual price, ending in 90 or 50.
        let price = cents * (50 + dice.below(150)) / 100;
        let price = price / 100 * 100 + *dice.pick(&[90, 50]);
        let stock = if dice.below(12) == 0 { 0 } else { 1 + dice.below(180) };
        product.execute(params![id, at, name, description, price, stock, created])?;

        let quality = 3 + dice.below(3);
        let reviews = dice.below(5) + dice.below(6);
        for _ in 0..reviews {
            let stars = (quality + dice.below(3) - 1).clamp(1, 5);
            let words = dice.pick(&REVIEWS[usize::try_from(stars).unwrap_or(1) - 1]);
            let written = created + 86_400 + dice.below(120 * 86_400);
            review.execute(params![id, stars, words, written])?;
        }
    }
    Ok(())
}

// 1 March 2022. The last of 10,000 products is three years younger.
const START: i64 = 1_646_092_800;

/// SplitMix64: nobody has to guess these numbers, they only have to be the same every time.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, most: u32) -> i64 {
        (self.next() % u64::from(most)).cast_signed()
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let at = self.next() % from.len() as u64;
        &from[usize::try_from(at).unwrap_or_default()]
    }
}

#[rustfmt::skip]
const STYLES: [&str; 16] = [
    "Classic", "Compact", "Nordic", "Rustic", "Everyday", "Tall", "Slim", "Foldable", "Vintage",
    "Modern", "Quiet", "Generous", "Striped", "Plain", "Travel", "Weekend",
];

const MAKERS: [&str; 6] = [
    "Made of {material} in small batches.",
    "The {material} comes from suppliers that we visit every year.",
    "Its {material} ages well and keeps its colour.",
    "We chose {material} because it lasts.",
    "Finished by hand; no two pieces of {material} look quite the same.",
    "Light in the hand, and all {material}.",
];

const CARES: [&str; 6] = [
    "Wipe with a damp cloth.",
    "Comes with a two-year guarantee.",
    "Spare parts can be ordered one by one.",
    "Ships flat in a box without plastic.",
    "A gift card can be added at the till.",
    "Returns are free within sixty days.",
];

const REVIEWS: [[&str; 4]; 5] = [
    ["Broke in a week.", "Not what the picture shows.", "Went straight back.", "Poorly finished."],
    [
        "Too small for me.",
        "Wobbles a little.",
        "Expected more for the price.",
        "Arrived scratched.",
    ],
    ["Does its job.", "Fine, nothing special.", "Good, but late.", "Okay for the price."],
    ["Solid and pretty.", "Would buy again.", "Better than the old one.", "Nice to hold."],
    ["I love it.", "Perfect, and a perfect gift.", "Use it every day.", "Worth every cent."],
];

#[rustfmt::skip]
const CATEGORIES: [Category; 12] = [
    Category {
        name: "Audio",
        things: [
            ("Headphones", 8900), ("Bookshelf Speaker", 14900), ("Radio", 7900),
            ("Turntable", 24900), ("Earbuds", 4900), ("Microphone", 9900), ("Soundbar", 19900),
            ("Record Stand", 3900), ("Amplifier", 29900), ("Metronome", 2900),
        ],
        materials: ["Walnut", "Aluminium", "Bamboo", "Linen", "Steel", "Cork"],
        sentence: "Tuned for voices and small rooms.",
    },
    Category {
        name: "Bags",
        things: [
            ("Backpack", 7900), ("Tote", 2900), ("Satchel", 8900), ("Duffel", 9900),
            ("Wallet", 3900), ("Sling", 4900), ("Laptop Sleeve", 3500), ("Pouch", 1500),
            ("Briefcase", 15900), ("Pannier", 6900),
        ],
        materials: ["Canvas", "Leather", "Felt", "Wool", "Nylon", "Cork"],
        sentence: "Holds a day's things and stands up by itself.",
    },
    Category {
        name: "Bath",
        things: [
            ("Towel", 2500), ("Soap Dish", 1200), ("Bath Mat", 2900), ("Brush", 900),
            ("Mirror", 5900), ("Shelf", 3900), ("Hamper", 4900), ("Stool", 6900),
            ("Robe", 7900), ("Tray", 1900),
        ],
        materials: ["Teak", "Cotton", "Bamboo", "Stone", "Linen", "Enamel"],
        sentence: "Dries quickly and does not mind steam.",
    },
    Category {
        name: "Furniture",
        things: [
            ("Desk", 34900), ("Chair", 14900), ("Bookcase", 22900), ("Bench", 17900),
            ("Side Table", 9900), ("Wardrobe", 49900), ("Bed Frame", 59900), ("Sofa", 89900),
            ("Coat Rack", 7900), ("Sideboard", 44900),
        ],
        materials: ["Oak", "Walnut", "Ash", "Pine", "Steel", "Rattan"],
        sentence: "Goes together without tools and comes apart again.",
    },
    Category {
        name: "Garden",
        things: [
            ("Watering Can", 2900), ("Planter", 3500), ("Trowel", 1400), ("Secateurs", 2900),
            ("Bird Feeder", 2400), ("Bench", 18900), ("Lantern", 2700), ("Rake", 2300),
            ("Cold Frame", 12900), ("Hose Reel", 6900),
        ],
        materials: ["Zinc", "Terracotta", "Cedar", "Copper", "Steel", "Willow"],
        sentence: "Stays outside all year.",
    },
    Category {
        name: "Kitchen",
        things: [
            ("Teapot", 4900), ("Chopping Board", 3900), ("Saucepan", 6900), ("Bowl", 1900),
            ("Coffee Grinder", 5900), ("Knife Block", 8900), ("Kettle", 5500), ("Jug", 2500),
            ("Casserole", 11900), ("Spice Rack", 3500),
        ],
        materials: ["Cast-Iron", "Stoneware", "Beech", "Copper", "Glass", "Enamel"],
        sentence: "For kitchens that are used three times a day.",
    },
    Category {
        name: "Lighting",
        things: [
            ("Desk Lamp", 5900), ("Pendant", 9900), ("Floor Lamp", 13900), ("Wall Light", 6900),
            ("Night Light", 1900), ("Chandelier", 24900), ("Lampshade", 3900), ("Candlestick", 1800),
            ("String Lights", 2200), ("Reading Light", 3400),
        ],
        materials: ["Brass", "Opal Glass", "Paper", "Linen", "Concrete", "Ash"],
        sentence: "Warm light, dimmed by touch.",
    },
    Category {
        name: "Outdoors",
        things: [
            ("Tent", 24900), ("Sleeping Bag", 12900), ("Flask", 2900), ("Hammock", 5900),
            ("Camp Stove", 6900), ("Head Torch", 3900), ("Trekking Pole", 4900), ("Mug", 1500),
            ("Blanket", 6900), ("Compass", 2700),
        ],
        materials: ["Titanium", "Aluminium", "Ripstop", "Nylon", "Steel", "Bamboo"],
        sentence: "Tested where it rains sideways.",
    },
    Category {
        name: "Stationery",
        things: [
            ("Notebook", 1400), ("Fountain Pen", 5900), ("Pencil Set", 1200), ("Desk Pad", 3900),
            ("Ruler", 700), ("Letter Opener", 1600), ("Planner", 2400), ("Stapler", 1900),
            ("Pen Tray", 2200), ("Ink", 1300),
        ],
        materials: ["Brass", "Cedar", "Linen", "Recycled", "Leather", "Walnut"],
        sentence: "For people who still write things down.",
    },
    Category {
        name: "Textiles",
        things: [
            ("Throw", 6900), ("Cushion", 3400), ("Rug", 18900), ("Curtain", 5900),
            ("Tea Towel", 1200), ("Tablecloth", 4400), ("Duvet Cover", 8900), ("Apron", 2900),
            ("Napkins", 1900), ("Runner", 3300),
        ],
        materials: ["Linen", "Wool", "Organic Cotton", "Jute", "Mohair", "Hemp"],
        sentence: "Washed soft before it leaves the mill.",
    },
    Category {
        name: "Tools",
        things: [
            ("Hammer", 2900), ("Hand Plane", 8900), ("Screwdriver Set", 3900), ("Tool Chest", 14900),
            ("Tape Measure", 1500), ("Spirit Level", 2700), ("Saw", 3400), ("Clamp", 1900),
            ("Workbench", 29900), ("Chisel", 2400),
        ],
        materials: ["Hickory", "Steel", "Beech", "Brass", "Ash", "Carbon"],
        sentence: "Sharp on arrival, and easy to keep so.",
    },
    Category {
        name: "Toys",
        things: [
            ("Train", 3900), ("Building Blocks", 2900), ("Kite", 2400), ("Puzzle", 1700),
            ("Doll House", 12900), ("Spinning Top", 900), ("Marble Run", 5900), ("Yo-Yo", 800),
            ("Rocking Horse", 15900), ("Memory Game", 1600),
        ],
        materials: ["Beech", "Felt", "Maple", "Cotton", "Cardboard", "Birch"],
        sentence: "From three years on, and for a long time after.",
    },
];
