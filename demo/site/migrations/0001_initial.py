from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel(
            name="Document",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("file", models.FileField(max_length=255, upload_to="uploads/%Y/%m/")),
                ("added", models.DateTimeField(auto_now_add=True, db_index=True)),
            ],
            options={"ordering": ("-added", "-id")},
        ),
    ]
