from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("dualstorage", "0002_runs"),
    ]

    operations = [
        migrations.AddField(
            model_name="storagestate",
            name="certified_place",
            field=models.TextField(
                blank=True,
                default="",
                help_text="Where the S3 side was then: endpoint, bucket and prefix.",
                verbose_name="certified place",
            ),
        ),
    ]
